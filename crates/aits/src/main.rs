//! The command line of aits.
fn main() {}
