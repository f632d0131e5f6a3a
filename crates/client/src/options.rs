//! How a process wants to be attached.

use std::time::Duration;

/// What a member may do with the pixels.
///
/// A reader gets a read-only descriptor of the payload from the daemon, so its pages are mapped read-only and a stray
/// write is a fault in the reader, not damage to somebody's frame. Against malice this only helps across user ids: a
/// process of the same user can open the descriptor again for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// May allocate and write blocks.
    #[default]
    ReadWrite,
    /// May receive, share, forward and drop blocks; [`crate::Client::alloc`] is refused.
    ReadOnly,
}

/// Options of [`crate::Client::connect`].
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Shown by `baton ls`; at most 63 bytes.
    pub name: String,
    /// Name under which other processes find this endpoint's inbox; at most 63 bytes. `None`: not found by anybody.
    pub inbox: Option<String>,
    /// What this process may do with the pixels.
    pub access: Access,
    /// How long to keep trying while the socket is absent or refuses. Default 5 s; zero tries once.
    pub timeout: Duration,
    /// How long [`crate::Inbox::recv`] may look again and again before it sleeps. Default 20 µs, a little more than a
    /// wake-up takes; used only as far as it pays off. Zero never spins.
    pub spin: Duration,
}

impl ConnectOptions {
    /// A read-write member called `name` without a registered inbox.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            inbox: None,
            access: Access::ReadWrite,
            timeout: Duration::from_secs(5),
            spin: Duration::from_micros(20),
        }
    }

    /// Registers this endpoint's inbox as `name`.
    pub fn inbox(mut self, name: impl Into<String>) -> Self {
        self.inbox = Some(name.into());
        self
    }

    /// Maps the pixels read-only.
    pub fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }

    /// Keeps trying for `timeout` while the socket is absent or refuses.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Looks for at most `spin` before sleeping.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }
}
