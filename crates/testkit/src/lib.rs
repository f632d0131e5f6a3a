//! What the tests of several crates share. Only tests depend on this crate; nothing that is shipped does.
//!
//! | for | there is |
//! |---|---|
//! | something that must come, however busy the machine | [`until`] and its [`WATCHDOG`] |
//! | a process of which only the number is known | [`kill`], [`is_alive`] |
//! | an example of a crate as a program | [`example`] |
//! | another process that the test gives orders to | [`Puppet`] |
//!
//! A watchdog is not a measure: it only turns a hang into a failure. No test asserts that something is fast.
#![forbid(unsafe_code)]

mod example;
mod process;
mod puppet;

use std::time::{Duration, Instant};

pub use example::example;
pub use process::{is_alive, kill};
pub use puppet::Puppet;

/// What a test waits for takes milliseconds; after this it hangs.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// Waits until `found` gives something.
///
/// # Panics
/// If nothing came within the [`WATCHDOG`]; `what` says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WATCHDOG;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_waits_for_what_comes_late() {
        let mut tries = 0;
        let found = super::until("the third try", || {
            tries += 1;
            (tries == 3).then_some("there")
        });
        assert_eq!((found, tries), ("there", 3));
    }
}
