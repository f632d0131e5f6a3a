//! Processes of which only the number is known: grandchildren, and what a log names.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal.
///
/// # Panics
/// If there is no such process, or it is somebody else's.
#[track_caller]
pub fn kill(pid: u32, signal: Signal) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(target, signal).unwrap_or_else(|error| panic!("{signal:?} to process {pid}: {error}"));
}

/// Whether a process exists and has not ended. A zombie has: its parent has merely not asked yet.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state is in parentheses and may hold anything, parentheses too.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep is there");
        assert!(is_alive(child.id()));
        kill(child.id(), Signal::KILL);
        crate::until("the zombie", || (!is_alive(child.id())).then_some(()));
        child.wait().expect("our own child");
        assert!(!is_alive(child.id()));
    }
}
