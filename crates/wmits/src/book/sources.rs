//! Wanted against actual: what vas tells, and what it is told.

use aits_orders::{OpenStream, SourceState, StreamId, StreamsReply, VasStream, inbox};

use super::Book;
use super::entry::{Entry, Need};
use crate::address::redacted_in;
use crate::store::Intent;

/// An order to vas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VasOrder {
    /// Close it.
    Close(StreamId),
    /// Open it.
    Open(OpenStream),
    /// Close whatever has this number, then open it.
    Reopen(OpenStream),
}

impl Book {
    /// The number of the last order that vas carried out. Ask before `vas.streams`, give it with the answer.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What vas has to be told now. Orders stay due until [`opened`](Self::opened), [`refused`](Self::refused) or
    /// [`closed`](Self::closed) is called.
    pub fn orders(&self) -> Vec<VasOrder> {
        let closes = self.closing.iter().map(|stream| VasOrder::Close(*stream));
        let wanted = self.entries.values().filter(|entry| entry.record.intent == Intent::Run);
        let opens = wanted.filter_map(|entry| match entry.need {
            Need::Nothing => None,
            Need::Open => Some(VasOrder::Open(order(entry))),
            Need::Reopen => Some(VasOrder::Reopen(order(entry))),
        });
        closes.chain(opens).collect()
    }

    /// vas closed the stream, or cannot be reached (then it tells when it is back that it still has it).
    pub fn closed(&mut self, stream: StreamId) {
        self.closing.remove(&stream);
    }

    /// vas opens this source. Answers whether the order was still the one that is wanted.
    pub fn opened(&mut self, order: &OpenStream) {
        self.epoch += 1;
        let epoch = self.epoch;
        if let Some(entry) = self.running_entry(order.stream) {
            entry.need = Need::Nothing;
            entry.ordered = epoch;
        }
    }

    /// vas refuses to open this source. The first time it may be since another source has the number: that one is to be
    /// closed first. Refused again, the task has failed; answers the outcome to be stored.
    pub fn refused(&mut self, stream: StreamId, reason: &str) -> Option<Intent> {
        let entry = self.running_entry(stream)?;
        if entry.need == Need::Open {
            entry.need = Need::Reopen;
            return None;
        }
        Some(Intent::Failed(redacted_in(reason, &entry.record.url)))
    }

    /// What vas told when it was asked at `epoch`. Answers the outcomes to be stored and then given to
    /// [`finish`](Self::finish).
    pub fn vas_says(&mut self, epoch: u64, reply: &StreamsReply) -> Vec<(StreamId, Intent)> {
        for stream in reply.streams.iter().map(|told| told.stream) {
            let wanted = self.entries.get(&stream).is_some_and(|entry| entry.record.intent == Intent::Run);
            if !wanted {
                self.closing.insert(stream);
            }
        }
        let mut outcomes = Vec::new();
        for (stream, entry) in &mut self.entries {
            if entry.record.intent != Intent::Run || entry.ordered > epoch {
                continue;
            }
            match reply.streams.iter().find(|told| told.stream == *stream) {
                Some(told) => outcomes.extend(entry.hear(told).map(|intent| (*stream, intent))),
                None => {
                    entry.running = false;
                    entry.need = entry.need.max(Need::Open);
                }
            }
        }
        outcomes
    }

    /// An outcome has been stored.
    pub fn finish(&mut self, stream: StreamId, intent: Intent) {
        if let Some(entry) = self.running_entry(stream) {
            entry.running = false;
            entry.need = Need::Nothing;
            entry.record.intent = intent;
        }
    }

    /// vas does not answer. What runs is opened again when it is back.
    pub fn vas_gone(&mut self) {
        for entry in self.entries.values_mut() {
            entry.running = false;
            entry.complaint = None;
        }
    }

    fn running_entry(&mut self, stream: StreamId) -> Option<&mut Entry> {
        self.entries.get_mut(&stream).filter(|entry| entry.record.intent == Intent::Run)
    }
}

impl Entry {
    /// What vas tells of this source. Answers an outcome, if it is final.
    fn hear(&mut self, told: &VasStream) -> Option<Intent> {
        self.vas = told.counters;
        self.video = told.video.clone().or(self.video.take());
        self.running = told.state == SourceState::Running;
        self.complaint = told.reason.as_deref().map(|reason| redacted_in(reason, &self.record.url));
        match told.state {
            SourceState::Ended => Some(Intent::Ended),
            SourceState::Failed => {
                let reason = told.reason.as_deref().unwrap_or("vas did not say why");
                Some(Intent::Failed(redacted_in(reason, &self.record.url)))
            }
            // Found open by a wmits that has just started: ordering it again makes sure that it is the same source.
            SourceState::Opening | SourceState::Running if self.ordered == 0 => {
                self.need = self.need.max(Need::Open);
                None
            }
            SourceState::Opening | SourceState::Running => None,
        }
    }
}

impl Need {
    fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::Reopen, _) | (_, Self::Reopen) => Self::Reopen,
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            _ => Self::Nothing,
        }
    }
}

fn order(entry: &Entry) -> OpenStream {
    OpenStream {
        stream: entry.record.stream,
        url: entry.record.url.clone(),
        pace: entry.record.pace,
        repeat: entry.record.repeat,
        inbox: inbox::WMITS_FRAMES.into(),
    }
}
