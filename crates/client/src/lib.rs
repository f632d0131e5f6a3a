//! The SDK: connect to rmmt, loan a block, publish it, receive it, drop it.
