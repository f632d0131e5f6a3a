//! The tasks in memory: what each shall do, and what its source and its results say. A state machine without I/O.
//!
//! ```text
//!              start                        frames come            end of file
//!   (none) ───────────▶ Starting ───────────────────────▶ Running ─────────────▶ Ended
//!                        ▲   ▲ │ vas refuses or cannot      │  │ source breaks
//!                  start │   │ └──────────────▶ Failed ◀────┼──┘
//!                        │   └───── vas went away ──────────┘
//!                     Stopped ◀── stop (from every state)
//! ```
//!
//! *Wanted* against *actual*: the wanted part is the store's [`Record`]; the actual part is what `vas.streams` tells. A
//! task that shall run and that vas does not know is to be opened; a stream that vas knows and no task wants is to be
//! closed ([`Book::orders`]). Both orders are idempotent, so it does no harm to give one twice, and neither vas nor wmits
//! has to remember the other: either may be killed at any time.
//!
//! An answer of vas may be older than an order that was carried out meanwhile. Each order carried out has a number
//! ([`Book::epoch`]), and an answer speaks only of streams whose last order is not younger than its question.
//!
//! `Ended`, `Failed` and `Stopped` are final until the next start, and stored: a restart of vas does not play a file again.

mod entry;
mod latency;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use aits_orders::{FrameResult, Micros, StreamId, Task};

use crate::dispatch::Routed;
use crate::store::{Intent, Record};
use entry::Entry;
pub use sources::VasOrder;

/// All tasks.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<StreamId, Entry>,
    closing: BTreeSet<StreamId>,
    epoch: u64,
    version: u64,
}

impl Book {
    /// A book with the tasks of the store. Those that shall run wait for what vas knows of them.
    pub fn new(records: Vec<Record>) -> Self {
        let entries = records.into_iter().map(|record| (record.stream, Entry::loaded(record))).collect();
        Self { entries, ..Self::default() }
    }

    /// The stream of the task with this id.
    pub fn find(&self, id: &str) -> Option<StreamId> {
        self.entries.values().find(|entry| entry.record.id == id).map(|entry| entry.record.stream)
    }

    /// The stored part of a task.
    pub fn record(&self, stream: StreamId) -> Option<&Record> {
        self.entries.get(&stream).map(|entry| &entry.record)
    }

    /// All stream numbers, in the order of creation.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.entries.keys().copied()
    }

    /// A task begins: one that is new, or one that had stopped, ended or failed.
    pub fn begin(&mut self, record: Record) {
        let stream = record.stream;
        let again = self.entries.contains_key(&stream);
        self.closing.remove(&stream);
        self.version += 1;
        self.entries.insert(stream, Entry::beginning(record, again, self.version));
    }

    /// A task is stopped by order. `routed` is what had happened to its frames.
    pub fn stop(&mut self, stream: StreamId, routed: Option<Routed>) {
        if let Some(entry) = self.entries.get_mut(&stream) {
            entry.record.intent = Intent::Stopped;
            entry.routed = routed.unwrap_or(entry.routed);
            self.closing.insert(stream);
        }
    }

    /// A task is taken out.
    pub fn remove(&mut self, stream: StreamId) {
        if self.entries.remove(&stream).is_some() {
            self.closing.insert(stream);
        }
    }

    /// A result came, `arrived` on the monotonic clock. `false` if no task wants it.
    pub fn result(&mut self, result: FrameResult, arrived: Micros) -> bool {
        let Some(entry) = self.entries.get_mut(&result.stream) else { return false };
        if entry.record.intent == Intent::Stopped {
            return false;
        }
        // The clock never goes back, also over restarts of this process: whoever waits for "other than what I have seen"
        // is never answered with silence.
        self.version = arrived.0.max(0).unsigned_abs().max(self.version + 1);
        entry.version = self.version;
        entry.latency.push(arrived.0.saturating_sub(result.decoded_at.0));
        entry.result = Some(result);
        true
    }

    /// Version and newest result of a stream; `None` if there is no such task.
    pub fn newest(&self, stream: StreamId) -> Option<(u64, Option<&FrameResult>)> {
        self.entries.get(&stream).map(|entry| (entry.version, entry.result.as_ref()))
    }

    /// A task as the platform sees it; `routed` as long as its frames are routed.
    pub fn task(&self, stream: StreamId, routed: Option<Routed>) -> Option<Task> {
        self.entries.get(&stream).map(|entry| entry.task(routed.unwrap_or(entry.routed)))
    }
}

#[cfg(test)]
mod tests;
