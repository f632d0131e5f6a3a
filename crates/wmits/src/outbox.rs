//! What leaves: frames to each vss, frames to watchers, orders to forget.

use std::collections::HashMap;

use aits_orders::{StreamId, inbox};
use aits_service::{NamedSender, NotSentReason};
use baton_client::{Block, Client};
use tokio::sync::mpsc;

use crate::dispatch::Frame;

/// Orders to forget that may wait for a vss that is away. More are dropped: a vss that restarts has forgotten anyway.
pub(crate) const FORGET_QUEUE: usize = 64;

/// All senders.
#[derive(Debug)]
pub(crate) struct Outbox {
    client: Client,
    vss: Vec<Way>,
    watchers: HashMap<String, NamedSender>,
}

/// The way to one vss.
#[derive(Debug)]
struct Way {
    frames: NamedSender,
    forget: mpsc::Sender<StreamId>,
}

impl Outbox {
    /// Ways to as many vss as there are queues for orders to forget.
    pub(crate) fn new(client: Client, forget: Vec<mpsc::Sender<StreamId>>) -> Self {
        let vss = (0_u32..)
            .zip(forget)
            .map(|(index, forget)| Way {
                frames: NamedSender::new(client.clone(), inbox::vss_frames(index)),
                forget,
            })
            .collect();
        Self { client, vss, watchers: HashMap::new() }
    }

    /// How many vss there are.
    pub(crate) fn instances(&self) -> usize {
        self.vss.len()
    }

    /// Hands a frame to a vss. It comes back if nobody receives, or the inbox is full.
    pub(crate) fn judge(&self, vss: usize, frame: Frame<Block>) -> Result<(), Frame<Block>> {
        let Some(way) = self.vss.get(vss) else { return Err(frame) };
        way.frames.send(frame.block).map_err(|not_sent| {
            if not_sent.reason == NotSentReason::Refused {
                tracing::debug!("a frame for vss-{vss} was refused by the pool");
            }
            Frame { sequence: frame.sequence, block: not_sent.block }
        })
    }

    /// Shares a block with a watcher. One that is away or slow misses it.
    pub(crate) fn share(&mut self, inbox: &str, block: Block) {
        let sender = self
            .watchers
            .entry(inbox.to_owned())
            .or_insert_with(|| NamedSender::new(self.client.clone(), inbox));
        if let Err(not_sent) = sender.send_newest(block) {
            tracing::trace!("{inbox} misses a frame: {:?}", not_sent.reason);
        }
    }

    /// Tells a vss to forget a stream, soon.
    pub(crate) fn forget(&self, vss: usize, stream: StreamId) {
        if let Some(way) = self.vss.get(vss) {
            let _full_or_ending = way.forget.try_send(stream);
        }
    }

    /// Lets go of watchers that `watching` does not know any more.
    pub(crate) fn keep_watchers(&mut self, watching: impl Fn(&str) -> bool) {
        self.watchers.retain(|inbox, _| watching(inbox));
    }
}
