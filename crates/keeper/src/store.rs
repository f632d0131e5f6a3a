//! What the keeper holds.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use baton_fdpass as fdpass;

use crate::message::Message;
use crate::systemd::Systemd;
use crate::ward::Deposit;

/// A held descriptor.
pub(crate) struct Held {
    pub(crate) note: Vec<u8>,
    pub(crate) fd: OwnedFd,
}

/// The descriptors, and the copy of them with systemd if there is one.
pub(crate) struct Store {
    held: BTreeMap<String, Held>,
    /// What the daemon was told is not held.
    refused: BTreeSet<String>,
    most: usize,
    pub(crate) systemd: Systemd,
}

/// What one packet of the daemon changed for the keeper itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing but what is held.
    Nothing,
    /// It serves.
    Ready,
    /// It ends on purpose.
    Leaving(u8),
    /// Another keeper has everything.
    Dismissed,
    /// Its loop turns.
    Alive,
    /// This could not be held: it must be told.
    Refused(String),
    /// This is held now, after it was refused: it must be told.
    Held(String),
    /// It has found no other keeper.
    Stay,
}

impl Store {
    pub(crate) fn new(most: usize, systemd: Systemd, found: Vec<Deposit>) -> Self {
        let held = found.into_iter().map(|Deposit { key, note, fd }| (key, Held { note, fd })).collect();
        Self { held, refused: BTreeSet::new(), most, systemd }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Held)> {
        self.held.iter()
    }

    /// Does what a packet says.
    pub(crate) fn take(&mut self, bytes: &[u8], mut received: fdpass::Received) -> Said {
        match (Message::decode(bytes), received.fds.pop()) {
            (Some(Message::Deposit { key, note }), Some(fd)) => self.hold(key, note, fd),
            (Some(Message::Deposit { key, .. }), None) => {
                self.refuse(key, "this process has no file descriptor left; raise the limit of open files")
            }
            (Some(Message::Withdraw { key }), None) => {
                self.refused.remove(&key);
                if let Some(held) = self.held.remove(&key) {
                    self.systemd.remove(&key, &held.note);
                }
                Said::Nothing
            }
            (Some(Message::Ready), None) => Said::Ready,
            (Some(Message::Leaving { code }), None) => Said::Leaving(code),
            (Some(Message::Dismissed), None) => Said::Dismissed,
            (Some(Message::Alive), None) => Said::Alive,
            (Some(Message::Stay), None) => Said::Stay,
            _ => {
                tracing::warn!("keeper: the daemon sent something that is no message; ignored");
                Said::Nothing
            }
        }
    }

    fn hold(&mut self, key: String, note: Vec<u8>, fd: OwnedFd) -> Said {
        let known = self.held.contains_key(&key);
        if !known && self.held.len() >= self.most {
            return self.refuse(key, "that is as many as a keeper takes");
        }
        if !known {
            // A later note stays here only: systemd keeps one copy of a descriptor, and taking it out to put it in again
            // under another name would leave a moment without it.
            self.systemd.store(&key, &note, &fd);
        }
        let was_refused = self.refused.remove(&key);
        self.held.insert(key.clone(), Held { note, fd });
        if was_refused {
            tracing::info!("keeper: `{key}` is held after all");
            return Said::Held(key);
        }
        Said::Nothing
    }

    /// Said once in the log: the daemon tries again and again.
    fn refuse(&mut self, key: String, why: &str) -> Said {
        if self.refused.insert(key.clone()) {
            tracing::error!("keeper: `{key}` cannot be held beside {} others: {why}", self.held.len());
        }
        Said::Refused(key)
    }
}
