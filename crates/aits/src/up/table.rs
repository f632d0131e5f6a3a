//! The processes as `up.processes` tells them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aits_orders::{Process, ProcessList, ProcessState};

use super::family::Stage;

/// One row per process, in starting order.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Vec<Row>>);

#[derive(Debug)]
struct Row {
    process: Process,
    since: Option<Instant>,
    stage: Option<Stage>,
}

impl Table {
    pub(super) fn add(&self, name: &str) {
        let process = Process {
            name: name.to_owned(),
            pid: None,
            state: ProcessState::Restarting,
            restarts: 0,
            up_ms: 0,
            last_exit: None,
        };
        self.rows().push(Row { process, since: None, stage: None });
    }

    /// A life begins. `stage` is what [`Self::alive`] counts it under.
    pub(super) fn begins(&self, name: &str, pid: Option<u32>, stage: Stage) {
        self.change(name, |row| {
            row.process.restarts += u32::from(row.process.last_exit.is_some());
            row.process.pid = pid;
            row.process.state = ProcessState::Running;
            row.since = Some(Instant::now());
            row.stage = Some(stage);
        });
    }

    /// A life ends.
    pub(super) fn ends(&self, name: &str, why: &str, state: ProcessState) {
        self.change(name, |row| {
            row.process.pid = None;
            row.process.state = state;
            row.process.last_exit = Some(why.to_owned());
            row.since = None;
            row.stage = None;
        });
    }

    /// Whether any process of this stage lives.
    pub(super) fn alive(&self, stage: Stage) -> bool {
        self.rows().iter().any(|row| row.stage == Some(stage))
    }

    pub(super) fn list(&self) -> ProcessList {
        let processes = self
            .rows()
            .iter()
            .map(|row| {
                let up = row.since.map_or(0, |since| since.elapsed().as_millis());
                Process { up_ms: u64::try_from(up).unwrap_or(u64::MAX), ..row.process.clone() }
            })
            .collect();
        ProcessList { processes }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows().iter_mut().find(|row| row.process.name == name) {
            change(row);
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
