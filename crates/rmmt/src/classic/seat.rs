//! A connection's right to speak for a pid: taken at the hello, given up with the connection.

use std::net::IpAddr;
use std::rc::Rc;

use baton_killpoint::step;
use baton_pool::{Admission, EndpointKind, EndpointRef};

use super::error::EnterError;
use super::pid::{Origin, Pid};
use crate::admission::IpGrant;
use crate::daemon::House;
use crate::registry::Peer;
use crate::watch::start_time_of;

/// Classic connections, at most.
const CONNECTIONS_MAX: usize = 1024;

/// Who is at the other end, as far as the kernel knows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller {
    /// A process of this host.
    Process(Peer),
    /// Somebody at this address.
    At(IpAddr, IpGrant),
}

impl Caller {
    fn quota(&self) -> u64 {
        match self {
            Self::Process(peer) => peer.grant.quota,
            Self::At(_, grant) => grant.quota,
        }
    }
}

/// One connection of a pid. Given up when dropped, however the connection ends.
pub(super) struct Seat {
    pub(super) house: Rc<House>,
    pub(super) pid: Pid,
    endpoint: EndpointRef,
    /// Its place among the connections of an address.
    _place: Option<Place>,
}

impl Seat {
    pub(super) fn take(house: &Rc<House>, claim: i32, caller: Caller) -> Result<Self, EnterError> {
        house.classic.greeting()?;
        if house.classic.connections.get() >= CONNECTIONS_MAX {
            return Err(EnterError::Full { max: CONNECTIONS_MAX });
        }
        let pid = Pid::new(claim).ok_or(EnterError::NoPid { claim })?;
        let origin = match caller {
            Caller::Process(peer) if peer.pid == pid.get() => Origin::Kernel { uid: peer.uid },
            Caller::Process(peer) => return Err(EnterError::NotYou { claim, real: peer.pid }),
            Caller::At(at, _) => Origin::Claim { at },
        };
        let place = match caller {
            Caller::Process(_) => None,
            Caller::At(at, grant) => Some(Place::take(house, pid, at, grant.connections)?),
        };
        match origin {
            Origin::Kernel { .. } => make_way(house, pid.get()),
            Origin::Claim { at } => {
                let here = house.classic.ledger.borrow().find(pid);
                let is_member = house.registry.borrow_mut().oldest_of(pid.get()).is_some();
                if is_member || matches!(here, Some((_, Origin::Kernel { .. }))) {
                    return Err(EnterError::Taken { pid: pid.get() });
                }
                if let Some((_, Origin::Claim { at: other })) = here
                    && other != at
                {
                    return Err(EnterError::Elsewhere { pid: pid.get(), at: other });
                }
            }
        }
        let joined = house.classic.ledger.borrow_mut().join(pid);
        let endpoint = match joined {
            Some(joined) => joined?,
            None => enter(house, pid, origin, caller.quota())?,
        };
        house.classic.connections.set(house.classic.connections.get() + 1);
        step!(ClassicSeated);
        Ok(Self { house: Rc::clone(house), pid, endpoint, _place: place })
    }

    /// Whether this seat was not given to somebody whom the kernel vouches for.
    pub(super) fn is_taken(&self) -> bool {
        let here = self.house.classic.ledger.borrow().find(self.pid);
        here.is_some_and(|(endpoint, _)| endpoint == self.endpoint)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.house.classic.connections.set(self.house.classic.connections.get().saturating_sub(1));
        if !self.is_taken() {
            return;
        }
        let gone = self.house.classic.ledger.borrow_mut().leave(self.pid);
        if let Some(endpoint) = gone {
            step!(ClassicForgotten);
            self.house.registry.borrow().classic_left(endpoint, self.pid.get());
        }
    }
}

/// One of the connections that an address may have. Free again when dropped.
struct Place {
    house: Rc<House>,
    at: IpAddr,
}

impl Place {
    /// `max` 0: as many as there can be.
    fn take(house: &Rc<House>, pid: Pid, at: IpAddr, max: usize) -> Result<Self, EnterError> {
        let mut connections = house.classic.connections_at.borrow_mut();
        let count = connections.get(&at).copied().unwrap_or(0);
        if max != 0 && count >= max {
            return Err(EnterError::ConnectionsAt { pid: pid.get(), at, max });
        }
        connections.insert(at, count + 1);
        Ok(Self { house: Rc::clone(house), at })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.house.classic.connections_at.borrow_mut();
        if let Some(count) = connections.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.at);
            }
        }
    }
}

/// Admits the endpoint of a pid that was not here.
fn enter(house: &House, pid: Pid, origin: Origin, quota_bytes: u64) -> Result<EndpointRef, EnterError> {
    let start_time = match origin {
        Origin::Kernel { .. } => start_time_of(pid.get()).unwrap_or(0),
        Origin::Claim { .. } => 0,
    };
    let admission = Admission {
        pid: pid.get(),
        start_time,
        name: "classic".to_owned(),
        inbox: None,
        kind: EndpointKind::Classic,
        quota_bytes,
    };
    let endpoint = house.registry.borrow().pool().admit(&admission)?;
    step!(ClassicAdmitted);
    let entered = house.classic.ledger.borrow_mut().enter(pid, origin, endpoint);
    entered.inspect_err(|_| house.registry.borrow().classic_left(endpoint, pid.get()))?;
    Ok(endpoint)
}

/// The kernel vouches that `pid` is somebody: whoever only says so over TCP is put out, and what it held is taken back.
pub(crate) fn make_way(house: &House, pid: u32) {
    let Ok(pid) = Pid::try_from(pid) else { return };
    let put_out = {
        let mut ledger = house.classic.ledger.borrow_mut();
        match ledger.find(pid) {
            Some((_, Origin::Claim { .. })) => ledger.put_out(pid),
            _ => None,
        }
    };
    if let Some(endpoint) = put_out {
        tracing::warn!(
            "rmmt: a client over ip:// that called itself pid={pid} is put out: the true one is here"
        );
        house.registry.borrow().classic_left(endpoint, pid.get());
        house.classic.put_out.notify_waiters();
    }
}
