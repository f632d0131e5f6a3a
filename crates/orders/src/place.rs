//! Where the services are found: sockets in one run directory, inboxes by name in the pool.

use std::path::{Path, PathBuf};

/// The directory (mode 0700) that holds the sockets of one running system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The directory at this path. Nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The URI of a service's socket: `rmmt`, `vas`, `vss-0`, `wmits`, `preview`, `up`.
    pub fn uri(&self, service: &str) -> String {
        format!("un://{}", self.socket(service).display())
    }

    /// The path of a service's socket.
    pub fn socket(&self, service: &str) -> PathBuf {
        self.0.join(format!("{service}.sock"))
    }
}

/// Names of inboxes in the pool.
pub mod inbox {
    /// Where vas publishes decoded frames; wmits receives.
    pub const WMITS_FRAMES: &str = "wmits.frames";
    /// Where wmits shares the frames of watched streams; preview receives.
    pub const PREVIEW_FRAMES: &str = "preview.frames";

    /// Where wmits sends the frames that the `index`-th vss is to judge.
    pub fn vss_frames(index: u32) -> String {
        format!("vss-{index}.frames")
    }

    /// Where preview sends JPEGs for the gateway worker of process `pid`.
    pub fn gateway_jpegs(pid: u32) -> String {
        format!("gateway-{pid}.jpegs")
    }
}

/// Names of methods. `params` → `result`.
pub mod method {
    /// [`StartTask`](crate::StartTask) → [`Task`](crate::Task). Idempotent when an `id` is given.
    pub const TASK_START: &str = "task.start";
    /// [`TaskRef`](crate::TaskRef) → [`Task`](crate::Task). The task stays in the list, in state `stopped`.
    pub const TASK_STOP: &str = "task.stop";
    /// [`TaskRef`](crate::TaskRef) → [`Task`](crate::Task) as it was last. Stops it and takes it out of the list.
    pub const TASK_DELETE: &str = "task.delete";
    /// `null` → [`TaskList`](crate::TaskList).
    pub const TASK_LIST: &str = "task.list";
    /// [`TaskRef`](crate::TaskRef) → [`Task`](crate::Task).
    pub const TASK_STATE: &str = "task.state";
    /// wmits: [`ResultsQuery`](crate::ResultsQuery) → [`ResultsReply`](crate::ResultsReply). Long poll.
    pub const RESULTS: &str = "results";
    /// wmits: [`WatchStream`](crate::WatchStream) → [`Watching`](crate::Watching).
    pub const WATCH: &str = "watch";
    /// [`OpenStream`](crate::OpenStream) → [`Opened`](crate::Opened). Idempotent.
    pub const VAS_OPEN: &str = "vas.open";
    /// [`CloseStream`](crate::CloseStream) → `null`. Idempotent.
    pub const VAS_CLOSE: &str = "vas.close";
    /// [`StreamsQuery`](crate::StreamsQuery) → [`StreamsReply`](crate::StreamsReply). Long poll.
    pub const VAS_STREAMS: &str = "vas.streams";
    /// [`VssResultsQuery`](crate::VssResultsQuery) → [`VssResultsReply`](crate::VssResultsReply). Long poll.
    pub const VSS_RESULTS: &str = "vss.results";
    /// [`ForgetStream`](crate::ForgetStream) → `null`. Drops tracks and counts of a stream.
    pub const VSS_FORGET: &str = "vss.forget";
    /// `null` → [`VssInfo`](crate::VssInfo).
    pub const VSS_INFO: &str = "vss.info";
    /// [`WatchPreview`](crate::WatchPreview) → [`Watching`](crate::Watching).
    pub const PREVIEW_WATCH: &str = "preview.watch";
    /// Supervisor: `null` → [`ProcessList`](crate::ProcessList).
    pub const UP_PROCESSES: &str = "up.processes";
}
