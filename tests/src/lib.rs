//! Tests of promises that span several crates.
