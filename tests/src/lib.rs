//! Tests of promises that span several crates, and the harness that they share: a whole system, started as a user
//! would start it, looked at only through what a user can see (its HTTP door, the pool's report, `/proc`).

#![forbid(unsafe_code)]

mod proc;
pub mod raw;
mod system;

pub use baton_testkit::is_alive;
pub use proc::{Usage, descendants};
pub use system::{Options, System, cache_dir, free_address, program, signal, wait_until};
