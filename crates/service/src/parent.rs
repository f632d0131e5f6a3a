//! A service must not outlive its supervisor.
//!
//! `PR_SET_PDEATHSIG` makes the kernel send SIGKILL when the *thread* that started this process ends. A parent that
//! died before the call is noticed by comparing parent process ids, so there is no window.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::ServiceError;

/// Environment variable that a supervisor sets for its children: its own process id.
pub const SUPERVISED_ENV: &str = "AITS_SUPERVISOR";

/// Whether a supervisor reads what this process writes.
pub(crate) fn supervised() -> bool {
    std::env::var_os(SUPERVISED_ENV).is_some()
}

/// Asks the kernel to kill this process when the thread that started it ends.
///
/// # Errors
/// The parent is gone already, or the kernel refuses.
pub fn die_with_parent() -> Result<(), ServiceError> {
    let before = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != before || orphaned(before) {
        return Err(ServiceError::failed("the process that started this service has ended"));
    }
    Ok(())
}

/// Whether a direct child of a supervisor has been given to another parent already.
///
/// Grandchildren inherit the variable too; their parent lives inside the supervisor's tree and is checked by
/// [`die_with_parent`] in that parent. For them only process 1 as parent is a proof.
fn orphaned(parent: Option<Pid>) -> bool {
    let supervisor = std::env::var(SUPERVISED_ENV).ok().and_then(|pid| pid.parse::<i32>().ok());
    match (supervisor, parent) {
        (Some(supervisor), Some(parent)) => parent == Pid::INIT && supervisor != 1,
        (Some(_), None) => false, // the parent lives in another pid namespace
        (None, _) => false,
    }
}
