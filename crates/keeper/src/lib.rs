//! A small parent process that holds descriptors for a daemon and restarts it.
