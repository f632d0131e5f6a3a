//! What the keeper holds.

use std::collections::BTreeMap;
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
}

impl Store {
    pub(crate) fn new(most: usize, systemd: Systemd, found: Vec<Deposit>) -> Self {
        let held = found.into_iter().map(|Deposit { key, note, fd }| (key, Held { note, fd })).collect();
        Self { held, most, systemd }
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
                tracing::error!(
                    "keeper: `{key}` cannot be held: this process has no file descriptor left ({} held); raise the limit \
                     of open files",
                    self.held.len()
                );
                Said::Refused(key)
            }
            (Some(Message::Withdraw { key }), None) => {
                if let Some(held) = self.held.remove(&key) {
                    self.systemd.remove(&key, &held.note);
                }
                Said::Nothing
            }
            (Some(Message::Ready), None) => Said::Ready,
            (Some(Message::Leaving { code }), None) => Said::Leaving(code),
            (Some(Message::Dismissed), None) => Said::Dismissed,
            (Some(Message::Alive), None) => Said::Alive,
            _ => {
                tracing::warn!("keeper: the daemon sent something that is no message; ignored");
                Said::Nothing
            }
        }
    }

    fn hold(&mut self, key: String, note: Vec<u8>, fd: OwnedFd) -> Said {
        let known = self.held.contains_key(&key);
        if !known && self.held.len() >= self.most {
            tracing::error!(
                "keeper: `{key}` cannot be held: {} descriptors are held already",
                self.held.len()
            );
            return Said::Refused(key);
        }
        if !known {
            // A later note stays here only: systemd keeps one copy of a descriptor, and taking it out to put it in again
            // under another name would leave a moment without it.
            self.systemd.store(&key, &note, &fd);
        }
        self.held.insert(key, Held { note, fd });
        Said::Nothing
    }
}
