//! The pool: blocks, holders, inboxes and recovery, a state machine in shared memory.
