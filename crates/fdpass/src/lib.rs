//! File descriptors that travel over Unix sockets (SCM_RIGHTS), owned at both ends.
