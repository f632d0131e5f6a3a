//! Taking connections from the kernel's queues.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::{Master, Phase};
use crate::door::{ACCEPT_REST, concerns_one_connection};
use crate::message::Give;
use crate::process::Waiting;
use crate::watch::Ready;
use crate::{ConnectionId, Event, Peer};

/// Connections accepted in one turn from one listener, so that a flood does not keep the loop from the workers.
const ACCEPT_BATCH: usize = 64;

impl Master {
    pub(super) fn accept(&mut self, now: Instant) {
        for index in 0..self.doors.len() {
            if self.doors[index].paused_until.is_some_and(|until| until > now) {
                continue;
            }
            self.doors[index].paused_until = None;
            for _ in 0..ACCEPT_BATCH {
                if self.pending.len() >= self.settings.pending_max {
                    return;
                }
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match rustix::net::acceptfrom_with(&self.doors[index].listeners[0], flags) {
                    Ok((socket, peer)) => {
                        let peer = peer.and_then(|peer| peer.try_into().ok()).map_or(Peer::Unix, Peer::Tcp);
                        self.accepted(index, socket, peer, now);
                    }
                    Err(Errno::AGAIN) => break,
                    Err(error) if concerns_one_connection(error) => {}
                    Err(error) => {
                        self.pause(index, error, now);
                        break;
                    }
                }
            }
        }
    }

    fn accepted(&mut self, door: usize, socket: std::os::fd::OwnedFd, peer: Peer, now: Instant) {
        let counts = &self.shared.counts;
        counts.accepted.fetch_add(1, Relaxed);
        let address = self.addresses.key(peer);
        if address.is_some_and(|key| !self.addresses.admit(key)) {
            counts.address_refused.fetch_add(1, Relaxed);
            if let (Peer::Tcp(peer), Some(refused)) = (peer, self.refused_said.count(now)) {
                self.say(Event::AddressRefused { address: peer.ip(), refused });
            }
            return;
        }
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let listener = u16::try_from(door).unwrap_or(u16::MAX);
        let give = Give { id, listener, peer, tell: address.is_some() };
        self.pending.push_back(Waiting { give, socket, address, sent: None });
    }

    fn pause(&mut self, index: usize, error: Errno, now: Instant) {
        self.shared.counts.accept_pauses.fetch_add(1, Relaxed);
        let door = &mut self.doors[index];
        door.paused_until = Some(now + ACCEPT_REST);
        if door.paused_said.count(now).is_some() {
            self.say(Event::AcceptPaused { listener: index, error: error.to_string() });
        }
    }

    /// Waits for connections only where they would be accepted: a listener that rests, or has nowhere to put them, would
    /// wake the loop for nothing.
    pub(super) fn watch_doors(&mut self, now: Instant) {
        let accepting = self.phase == Phase::Running
            && self.settings.policy.is_passing()
            && self.pending.len() < self.settings.pending_max;
        for (index, door) in self.doors.iter_mut().enumerate() {
            let wanted = accepting && door.paused_until.is_none_or(|until| until <= now);
            if wanted == door.watched {
                continue;
            }
            let listener = &door.listeners[0];
            if !wanted {
                self.watch.remove(listener);
                door.watched = false;
            } else if self.watch.add(listener, Ready::Door(index)).is_ok() {
                door.watched = true;
            } else {
                // The kernel has no memory for it: again after a rest.
                door.paused_until = Some(now + ACCEPT_REST);
            }
        }
    }
}
