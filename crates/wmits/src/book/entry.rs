//! One task in memory.

use aits_orders::{FrameResult, Task, TaskCounters, TaskState, VasCounters, VideoInfo};

use super::latency::Window;
use crate::address::redacted;
use crate::dispatch::Routed;
use crate::store::{Intent, Record};

/// What is to be told to vas about the source of a task that shall run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Nothing, or not known yet.
    Nothing,
    /// Open it (no harm if it is open).
    Open,
    /// Close whatever has this number, then open it.
    Reopen,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) need: Need,
    /// Number of the last order carried out, 0 for none. `u64::MAX` while one is due that old answers know nothing of.
    pub(super) ordered: u64,
    pub(super) running: bool,
    /// What vas complains of while the source runs.
    pub(super) complaint: Option<String>,
    pub(super) video: Option<VideoInfo>,
    pub(super) vas: VasCounters,
    pub(super) routed: Routed,
    pub(super) latency: Window,
    pub(super) result: Option<FrameResult>,
    pub(super) version: u64,
}

impl Entry {
    /// A task found in the store at the start of this process.
    pub(super) fn loaded(record: Record) -> Self {
        Self {
            record,
            need: Need::Nothing,
            ordered: 0,
            running: false,
            complaint: None,
            video: None,
            vas: VasCounters::default(),
            routed: Routed::default(),
            latency: Window::default(),
            result: None,
            version: 0,
        }
    }

    /// A task that begins by order.
    pub(super) fn beginning(record: Record, again: bool, version: u64) -> Self {
        let need = if again { Need::Reopen } else { Need::Open };
        Self { need, ordered: u64::MAX, version, ..Self::loaded(record) }
    }

    fn state(&self) -> (TaskState, Option<&str>) {
        match &self.record.intent {
            Intent::Run if self.running => (TaskState::Running, self.complaint.as_deref()),
            Intent::Run => (TaskState::Starting, self.complaint.as_deref()),
            Intent::Stopped => (TaskState::Stopped, None),
            Intent::Ended => (TaskState::Ended, None),
            Intent::Failed(reason) => (TaskState::Failed, Some(reason)),
        }
    }

    pub(super) fn task(&self, routed: Routed) -> Task {
        let (state, reason) = self.state();
        Task {
            id: self.record.id.clone(),
            stream: self.record.stream,
            state,
            url: redacted(&self.record.url),
            reason: reason.map(Into::into),
            pace: self.record.pace,
            repeat: self.record.repeat,
            detect_hz: self.record.detect_hz,
            created_at: self.record.created_at.clone(),
            video: self.video.clone(),
            counters: TaskCounters {
                vas: self.vas,
                received: routed.received,
                late: routed.late,
                judged: routed.judged,
                replaced: routed.replaced,
                results: routed.results,
            },
            latency: self.latency.distribution(),
            result: self.result.clone(),
        }
    }
}
