//! How connections come about and end. What ends with one is counted; it is made anew, after a growing rest if it gave no
//! answer at all.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll;
use rustix::io::Errno;

use super::Wheel;
use crate::LoadError;
use crate::answers::UnderWay;
use crate::link::State;
use crate::run::{Progress, nanos};

/// After so long a full queue is tried again.
const QUEUE_REST: u64 = 1_000_000;
/// Rest after a failed life: this much, doubled each time, up to the second.
const REST: u64 = 10_000_000;
const REST_MAX: u64 = 1_000_000_000;
/// Why a life of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// This side is done with it.
    Done,
    /// The other side ended it.
    Early,
    /// The other side broke it off.
    Reset,
    /// Not answered in time, or not in frames.
    GivenUp,
}

impl Wheel<'_> {
    /// Makes the connections; those that fail at first are tried again during the run.
    pub(crate) fn connect_all(
        &mut self,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(&Progress),
    ) -> Result<(), LoadError> {
        if self.plan.per_connection.is_some() {
            return Ok(());
        }
        (0..self.links.len()).for_each(|index| self.want(index));
        let patience = nanos(self.plan.timeout);
        while self.up < self.links.len() && !stop.load(Ordering::Relaxed) {
            if self.now() > patience {
                break;
            }
            if let Some(errno) = self.refusal.filter(|_| self.up == 0 && self.tally.links.made == 0) {
                return Err(LoadError::Connect { address: self.plan.address.clone(), source: errno.into() });
            }
            self.turn(None, tell)?;
        }
        if self.up == 0 {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(LoadError::Connect { address: self.plan.address.clone(), source });
        }
        Ok(())
    }

    /// This link is to connect, in its turn.
    pub(super) fn want(&mut self, index: usize) {
        let link = &mut self.links[index];
        if matches!(link.state, State::Resting) && !link.is_queued {
            link.is_queued = true;
            self.queue.push_back(index);
        }
    }

    pub(super) fn connect(&mut self, index: usize) -> Result<(), LoadError> {
        let now = self.now();
        match self.target.begin() {
            Ok(socket) => {
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT)
                    .map_err(LoadError::system("watch a socket"))?;
                self.links[index].state = State::Connecting { socket, since: now };
                self.connecting += 1;
            }
            Err(Errno::AGAIN) => self.rest_until(index, now + QUEUE_REST),
            Err(errno) => self.failed(index, errno),
        }
        Ok(())
    }

    fn rest_until(&mut self, index: usize, until: u64) {
        self.links[index].is_queued = true;
        self.resting.push(Reverse((until, index)));
    }

    /// An attempt to connect came to nothing.
    pub(super) fn failed(&mut self, index: usize, errno: Errno) {
        self.tally.links.failed += 1;
        self.refusal = Some(errno);
        let link = &mut self.links[index];
        link.rest(self.plan.answer_bytes_max);
        let rest = (REST << link.failures.min(7)).min(REST_MAX);
        link.failures += 1;
        let until = self.now() + rest;
        self.rest_until(index, until);
    }

    pub(super) fn connected(&mut self, index: usize) {
        let now = self.now();
        let link = &mut self.links[index];
        let State::Connecting { socket, .. } = std::mem::replace(&mut link.state, State::Resting) else {
            return;
        };
        let data = epoll::EventData::new_u64(index as u64);
        // It is registered; should this fail, the time-out ends the connection.
        let _ = epoll::modify(&self.epoll, &socket, data, epoll::EventFlags::IN);
        link.state = State::Up { socket };
        self.up += 1;
        self.tally.links.made += 1;
        self.sign_of_life = now;
        if let Some(since) = link.down_since.take() {
            self.tally.links.remade += 1;
            self.tally.outage_max = self.tally.outage_max.max(now - since);
        }
        if self.issuing {
            self.fill(index);
        }
    }

    /// A life ends: what is under way on it has ended, too.
    pub(super) fn end(&mut self, index: usize, how: End) {
        let now = self.now();
        let link = &mut self.links[index];
        let how = if link.is_broken && how == End::Early { End::Reset } else { how };
        let links = &mut self.tally.links;
        match how {
            End::Done => {}
            End::Early => links.early_ends += 1,
            End::Reset => links.resets += 1,
            End::GivenUp => links.given_up += 1,
        }
        let pending = link.pending.len() as u64;
        self.tally.fates.lost += pending;
        self.tally.ended(pending);
        let proven = link.is_proven;
        link.rest(self.plan.answer_bytes_max);
        self.up -= 1;
        if how == End::Done {
            return;
        }
        link.down_since = Some(now);
        if self.ended {
            return;
        }
        if proven {
            self.want(index);
        } else {
            let rest = (REST << link.failures.min(7)).min(REST_MAX);
            link.failures += 1;
            self.rest_until(index, now + rest);
        }
    }

    pub(super) fn look_for_time_outs(&mut self, now: u64) {
        let patience = nanos(self.plan.timeout);
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if let State::Connecting { since, .. } = link.state {
                if now.saturating_sub(since) > patience {
                    self.connecting -= 1;
                    self.failed(index, Errno::TIMEDOUT);
                }
                continue;
            }
            let is_late = |request: &&UnderWay| now.saturating_sub(request.sent) > patience;
            // Sent in this order, so the late ones are the first ones.
            let late = link.pending.iter().take_while(is_late).count();
            if late > 0 {
                link.pending.drain(..late);
                self.tally.fates.timed_out += late as u64;
                self.tally.quiet(now);
                self.tally.ended(late as u64);
                self.end(index, End::GivenUp);
            }
        }
    }
}
