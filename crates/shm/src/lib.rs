//! Shared memory of the kernel behind safe types: sealed memfds, mappings, and how much memory the host really has.
