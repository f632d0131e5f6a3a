//! The command line of baton.
fn main() {}
