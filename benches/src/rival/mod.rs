//! What Baton is measured against.

pub mod floor;
pub mod iox;
