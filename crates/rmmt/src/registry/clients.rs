//! What the daemon does for classic clients: finding the member they send to, taking back their endpoints, making room.

use baton_pool::{Admission, EndpointKind, EndpointRef};

use super::{Cause, Registry, Standing};
use crate::watch::start_time_of;

impl Registry {
    /// The oldest endpoint of a living process that receives.
    pub(crate) fn oldest_of(&mut self, pid: u32) -> Option<EndpointRef> {
        let receives = |e: &&super::Entry| e.pid == pid && e.note.standing == Standing::Present;
        let oldest = self.entries.values().filter(receives).min_by_key(|e| e.note.born)?;
        let endpoint = oldest.endpoint;
        if oldest.process.has_ended() {
            self.reap(endpoint, Cause::Died);
            return self.oldest_of(pid); // one fewer
        }
        Some(endpoint)
    }

    /// The last connection of a classic client ended.
    pub(crate) fn classic_left(&self, endpoint: EndpointRef, pid: u32) {
        self.take_back(endpoint, pid, "classic", Cause::Ended);
    }

    /// Sees to it that a block of `len` bytes can be had, at the price of empty extents of other sizes. False if not.
    pub(crate) fn make_room(&mut self, len: usize) -> bool {
        let Some(daemon) = self.own_endpoint() else { return false };
        match self.pool.make_room(daemon, len) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!("rmmt: {error}");
                false
            }
        }
    }

    /// Finishes what the daemon before was doing to extents when it was killed.
    pub(super) fn mend_extents(&mut self) {
        if self.pool.unfinished_extents() > 0
            && let Some(daemon) = self.own_endpoint()
        {
            let mended = self.pool.repair(daemon);
            tracing::info!("rmmt: the daemon before was killed while {mended} extents changed hands: mended");
        }
    }

    /// The daemon's own endpoint, admitted when it is first needed.
    fn own_endpoint(&mut self) -> Option<EndpointRef> {
        if self.own.is_none() {
            let pid = std::process::id();
            let admission = Admission {
                pid,
                start_time: start_time_of(pid).unwrap_or(0),
                name: "rmmt".to_owned(),
                inbox: None,
                kind: EndpointKind::Daemon,
                quota_bytes: 0,
            };
            match self.pool.admit(&admission) {
                Ok(endpoint) => self.own = Some(endpoint),
                Err(error) => tracing::warn!("rmmt: no endpoint for the daemon itself: {error}"),
            }
        }
        self.own
    }
}
