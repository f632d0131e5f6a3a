//! Hang-up, bye, death: how endpoints end.

use std::os::fd::AsFd;
use std::time::Instant;

use baton_killpoint::step;
use baton_pool::{BlockId, EndpointRef};

use super::{Cause, Entry, Registry, Standing, deposit_key};

impl Registry {
    /// The session ended without bye. A dead process is the watcher's affair; a living one keeps what it holds.
    pub(crate) fn hung_up(&mut self, endpoint: EndpointRef, session: u64) {
        let Some(entry) = self.current(endpoint).filter(|e| e.session == Some(session)) else { return };
        if entry.process.has_ended() {
            self.reap(endpoint, Cause::Died);
            return;
        }
        tracing::info!(
            "rmmt: hung up pid={} name={} endpoint={}; it lives, so its inbox is closed and its blocks stay",
            entry.pid,
            entry.name,
            endpoint.id
        );
        self.close(endpoint, Standing::HungUp);
    }

    /// The member said bye: it uses nothing any more. That is looked up, not believed: an endpoint that still holds
    /// blocks is taken back by [`Registry::sweep`] when it holds nothing, or at its death.
    pub(crate) fn leave(&mut self, endpoint: EndpointRef, session: u64) {
        if self.current(endpoint).is_some_and(|e| e.session == Some(session)) {
            self.close(endpoint, Standing::Left);
            step!(LeaveNoted);
            self.sweep();
        }
    }

    pub(super) fn close(&mut self, endpoint: EndpointRef, standing: Standing) {
        self.return_all(endpoint);
        let Some(entry) = self.current(endpoint) else { return };
        entry.session = None;
        entry.inbox = None;
        entry.note.standing = standing;
        self.close_inbox(endpoint);
        step!(LeaveClosed);
        if let Some(entry) = self.entries.get(&endpoint.id)
            && let Err(error) = self.deposit(endpoint, &entry.note, entry.wake.as_fd())
        {
            // A daemon after this one would take it for silent, and never take it back before its death.
            tracing::warn!("rmmt: endpoint={}: {error}", endpoint.id);
        }
    }

    /// Takes back the endpoints that said bye and hold nothing any more.
    pub(crate) fn sweep(&mut self) {
        if !self.entries.values().any(|e| e.note.standing == Standing::Left) {
            return;
        }
        for info in self.pool.endpoints() {
            let left = self.current(info.endpoint).is_some_and(|e| e.note.standing == Standing::Left);
            if left && info.held_blocks == 0 {
                self.reap(info.endpoint, Cause::Left);
            }
        }
    }

    fn close_inbox(&self, endpoint: EndpointRef) {
        match self.pool.close_inbox(endpoint) {
            Ok(closed) => self.wake(&closed.wake),
            Err(error) => {
                tracing::error!("rmmt: the inbox of endpoint={} cannot be closed: {error}", endpoint.id)
            }
        }
        // Its own reader must notice, whether it sleeps or is about to.
        self.wake(&[endpoint.id]);
    }

    /// Takes everything back that the endpoint holds. Nothing happens if that was done before.
    pub(crate) fn reap(&mut self, endpoint: EndpointRef, cause: Cause) {
        if self.current(endpoint).is_none() {
            return;
        }
        self.lent.retain(|(asker, _)| *asker != endpoint); // swept with everything else it holds
        if let Some(entry) = self.entries.remove(&endpoint.id) {
            if let Some(watcher) = &entry.watcher {
                watcher.abort();
            }
            step!(ReapForgotten);
            self.take_back(endpoint, entry.pid, &entry.name, cause);
        }
    }

    /// The admission was not answered: nobody knows of this endpoint.
    pub(crate) fn undo(&mut self, endpoint: EndpointRef) {
        self.reap(endpoint, Cause::Unfinished);
    }

    pub(super) fn current(&mut self, endpoint: EndpointRef) -> Option<&mut Entry> {
        self.entries.get_mut(&endpoint.id).filter(|e| e.endpoint == endpoint)
    }

    pub(super) fn take_back(&self, endpoint: EndpointRef, pid: u32, name: &str, cause: Cause) {
        self.deaths.set(self.deaths.get() + u64::from(cause == Cause::Died));
        let begin = Instant::now();
        match self.pool.reap(endpoint) {
            Ok(reaped) => {
                step!(ReapTakenBack);
                // First those who wait for what is free now, then the books.
                self.wake(&reaped.wake);
                step!(ReapWoken);
                self.reaps.observe(begin.elapsed().as_secs_f64());
                let word = match cause {
                    Cause::Died => "reaped",
                    Cause::Left => "left",
                    Cause::Unfinished => "undone",
                    Cause::Ended => "ended",
                };
                let blocks = listed(&reaped.blocks);
                let count = reaped.blocks.len();
                tracing::info!(
                    "rmmt: {word} pid={pid} name={name} endpoint={} blocks=[{blocks}] ({count})",
                    endpoint.id
                );
            }
            Err(error) => {
                tracing::error!("rmmt: endpoint={} of pid={pid} cannot be reaped: {error}", endpoint.id)
            }
        }
        // What a classic client was is nowhere but here.
        if cause != Cause::Ended {
            self.chest.withdraw(&deposit_key(endpoint));
        }
        step!(ReapWithdrawn);
    }

    /// Closes every inbox, so that members learn that the pool ends.
    pub(crate) fn close_all(&self) {
        let endpoints: Vec<_> = self.entries.values().map(|e| e.endpoint).collect();
        for endpoint in endpoints {
            self.close_inbox(endpoint);
        }
    }
}

/// The first blocks of a list, for one line of a log.
fn listed(blocks: &[BlockId]) -> String {
    const SHOWN: usize = 64;
    let mut text = blocks.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if blocks.len() > SHOWN {
        text.push_str(" …");
    }
    text
}
