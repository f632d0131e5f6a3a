//! What Baton is measured against.

pub mod floor;
pub mod iox;
pub mod original;
pub mod raw;
