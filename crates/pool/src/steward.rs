//! What the daemon does with a pool: admit members, take back what the dead held. One daemon per pool (it holds a lock
//! for that); members never call these.

use crate::door::AWAKE;
use crate::ids::{BlockId, EndpointId, EndpointRef};
use crate::pool::Pool;
use crate::reap::Swept;
use crate::region::{Count, STATE_FREE, STATE_LIVE};
use crate::sync::{AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// Bytes that fit a name.
const NAME_MAX: usize = 63;

/// Who wants to become a member. The daemon has pid and start time from the kernel, the names from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Process id.
    pub pid: u32,
    /// When the process started, in the kernel's clock ticks since boot (field 22 of proc_pid_stat(5)): a pid alone is
    /// reused.
    pub start_time: u64,
    /// Name to show, at most 63 bytes.
    pub name: String,
    /// Name under which others find the inbox, at most 63 bytes.
    pub inbox: Option<String>,
    /// What kind of member.
    pub kind: EndpointKind,
    /// Bytes of blocks that it may hold, 0 for no limit.
    pub quota_bytes: u64,
}

/// How a member works in the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A process that has the pool mapped and works in it by itself.
    #[default]
    Attached,
    /// A process for which the daemon works, see [`Proxy`](crate::Proxy).
    Classic,
    /// The daemon itself.
    Daemon,
}

impl EndpointKind {
    pub(crate) fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Classic,
            2 => Self::Daemon,
            _ => Self::Attached,
        }
    }
}

/// Why nobody was admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The table is full.
    #[error("the pool has {max} members already: raise the pool's number of endpoints")]
    Full {
        /// Size of the table.
        max: u16,
    },
    /// A name does not fit or contains a NUL.
    #[error("the name {name:?} is not possible: use 1 to {NAME_MAX} bytes without NUL")]
    BadName {
        /// The name.
        name: String,
    },
    /// A living member has that inbox.
    #[error(
        "the inbox {name:?} belongs to endpoint {owner} already: stop that program or choose another name"
    )]
    InboxTaken {
        /// The name.
        name: String,
        /// Who has it.
        owner: EndpointId,
    },
}

/// What the dead one left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Blocks that it held or had unread in its inbox.
    pub blocks: Vec<BlockId>,
    /// How many of them are free now (the others have other holders).
    pub freed: u32,
    /// Words that could not be cleaned because they never stood still. Not 0: some member corrupts the metadata.
    pub disturbed: u32,
    /// Receivers that sleep on their eventfds: write to them, the dead one may have owed them a wake-up. (Those that
    /// sleep on futexes are awake by now.)
    pub wake: Vec<EndpointId>,
}

impl From<Swept> for Reaped {
    fn from(swept: Swept) -> Self {
        Self { blocks: swept.blocks, freed: swept.freed, disturbed: swept.disturbed, wake: swept.wake }
    }
}

/// Why nothing was reaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReapError {
    /// Nobody has this number now, or somebody else has.
    #[error("endpoint {} (incarnation {}) is not admitted: it was reaped already", .0.id, .0.incarnation)]
    NotAdmitted(EndpointRef),
}

impl Pool {
    /// Gives a number to a process. Others can send to it at once; it attaches with [`Pool::attach`].
    ///
    /// # Errors
    /// [`AdmitError`].
    pub fn admit(&self, who: &Admission) -> Result<EndpointRef, AdmitError> {
        let region = &self.shared.region;
        for name in std::iter::once(&who.name).chain(&who.inbox) {
            if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
                return Err(AdmitError::BadName { name: name.clone() });
            }
        }
        if let Some(inbox) = &who.inbox
            && let Some(owner) = self.find_inbox(inbox)
        {
            return Err(AdmitError::InboxTaken { name: inbox.clone(), owner: owner.id });
        }
        let free = region.ids().find_map(|id| {
            let record = region.endpoint(id)?;
            (record.state().load(Ordering::SeqCst) == STATE_FREE).then_some((id, record))
        });
        let (id, record) = free.ok_or(AdmitError::Full { max: region.geometry.endpoints() })?;
        record.pid().store(who.pid.into(), Ordering::SeqCst);
        record.start_time().store(who.start_time, Ordering::SeqCst);
        write_name(record.name(), &who.name);
        write_name(record.inbox_name(), who.inbox.as_deref().unwrap_or_default());
        record.quota_bytes().store(who.quota_bytes, Ordering::SeqCst);
        record.kind().store(who.kind as u64, Ordering::SeqCst);
        for what in [Count::Received, Count::Sent, Count::Dropped, Count::Waits, Count::Refused] {
            record.count(what).store(0, Ordering::SeqCst);
        }
        record.room_waiters().store(0, Ordering::SeqCst);
        record.sleeping().store(AWAKE, Ordering::SeqCst);
        record.state().store(STATE_LIVE, Ordering::SeqCst); // last: before it nothing has happened
        Ok(EndpointRef { id, incarnation: record.incarnation().load(Ordering::SeqCst) as u32 })
    }

    /// The living owner of an inbox name.
    #[must_use]
    pub fn find_inbox(&self, name: &str) -> Option<EndpointRef> {
        let region = &self.shared.region;
        region.ids().find_map(|id| {
            let record = region.endpoint(id)?;
            let found =
                record.state().load(Ordering::SeqCst) == STATE_LIVE && read_name(record.inbox_name()) == name;
            found.then(|| EndpointRef { id, incarnation: record.incarnation().load(Ordering::SeqCst) as u32 })
        })
    }

    /// The living owner of a number, to address messages to it.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointRef> {
        let record = self.shared.region.endpoint(id)?;
        let incarnation = record.incarnation().load(Ordering::SeqCst) as u32;
        (record.state().load(Ordering::SeqCst) == STATE_LIVE).then_some(EndpointRef { id, incarnation })
    }

    /// The member's connection ended but its process lives: nobody can send to it any more, unread messages are taken
    /// back; what it holds stays held until [`Pool::reap`].
    ///
    /// # Errors
    /// [`ReapError`] if it is not admitted.
    pub fn close_inbox(&self, endpoint: EndpointRef) -> Result<Reaped, ReapError> {
        self.check(endpoint)?;
        Ok(self.shared.region.close_inbox(endpoint.id).into())
    }

    /// The member's process is dead (the caller has it from the kernel: no thread of it runs any more): takes back all
    /// that it held, closes its inbox and frees its number. A daemon killed in the middle repeats it: an endpoint in
    /// state [`Dead`](crate::EndpointState::Dead) is accepted whatever its incarnation.
    ///
    /// # Errors
    /// [`ReapError`] if it is not admitted.
    pub fn reap(&self, endpoint: EndpointRef) -> Result<Reaped, ReapError> {
        self.check(endpoint)?;
        Ok(self.shared.region.reap(endpoint.id).into())
    }

    /// Wakes everybody who sleeps on a futex, and says which receivers sleep on their eventfds: write to them. For a daemon that wants to be
    /// sure, after its own restart.
    #[must_use]
    pub fn take_sleepers(&self) -> Vec<EndpointId> {
        self.shared.region.take_sleepers()
    }

    fn check(&self, endpoint: EndpointRef) -> Result<(), ReapError> {
        use crate::region::STATE_DEAD;
        let refused = Err(ReapError::NotAdmitted(endpoint));
        let Some(record) = self.shared.region.endpoint(endpoint.id) else { return refused };
        match record.state().load(Ordering::SeqCst) {
            STATE_FREE => refused,
            STATE_DEAD => Ok(()),
            _ if record.incarnation().load(Ordering::SeqCst) == u64::from(endpoint.incarnation) => Ok(()),
            _ => refused,
        }
    }
}

fn write_name(cells: &[AtomicU64], name: &str) {
    let mut bytes = [0u8; NAME_MAX + 1];
    for (to, from) in bytes.iter_mut().zip(name.as_bytes().iter().take(NAME_MAX)) {
        *to = *from;
    }
    for (cell, chunk) in cells.iter().zip(bytes.chunks_exact(8)) {
        cell.store(chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), Ordering::SeqCst);
    }
}

/// Whatever lies there, as text.
pub(crate) fn read_name(cells: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = cells
        .iter()
        .flat_map(|cell| cell.load(Ordering::SeqCst).to_le_bytes())
        .take_while(|byte| *byte != 0)
        .take(NAME_MAX)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
