//! What the supervisor (`aits up`) tells about its processes.

use serde::{Deserialize, Serialize};

/// All processes that the supervisor started.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ProcessList {
    /// In starting order.
    pub processes: Vec<Process>,
}

/// State of a supervised process.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It ended and is started again after its back-off.
    Restarting,
    /// It ended in a way that starting again cannot mend (bad configuration).
    Failed,
}

/// One supervised process.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Process {
    /// Its name: `rmmt`, `vas`, `vss-0`, `wmits`, `preview`, `gateway`.
    pub name: String,
    /// Its process id; `None` between two lives.
    pub pid: Option<u32>,
    /// What it does.
    pub state: ProcessState,
    /// How often it was started again.
    pub restarts: u32,
    /// For how long it has been running, milliseconds.
    pub up_ms: u64,
    /// Why it ended the last time.
    pub last_exit: Option<String>,
}
