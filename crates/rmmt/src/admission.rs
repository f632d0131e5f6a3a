//! Who may attach: decided by what the kernel says about the peer, before a byte of it is read.

use std::os::fd::AsFd;

use baton_fdpass::{PeerCredentials, peer_credentials};
use baton_wire::attach::{ErrorCode, Failure};

/// The users that may attach.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    own_uid: u32,
    allowed: Vec<u32>,
}

impl Policy {
    /// The daemon's own user, root, and `allowed`.
    pub(crate) fn new(allowed: Vec<u32>) -> Self {
        Self { own_uid: rustix::process::geteuid().as_raw(), allowed }
    }

    /// Who the peer is, if it may come in. The refusal says what to do; it tells nothing that `ls -l` of the socket
    /// would not.
    pub(crate) fn admit(&self, socket: impl AsFd) -> Result<PeerCredentials, Failure> {
        let peer = peer_credentials(socket).map_err(|error| {
            tracing::warn!("rmmt: a peer without credentials is refused: {error}");
            Failure::new(
                ErrorCode::Denied,
                "the kernel does not say who you are; attach from this host's namespace",
            )
        })?;
        if self.may_attach(peer.uid) {
            return Ok(peer);
        }
        tracing::warn!(
            "rmmt: refused pid={} of user {}: only user {} may attach",
            peer.pid,
            peer.uid,
            self.own_uid
        );
        Err(Failure::new(
            ErrorCode::Denied,
            format!("user {} may not attach; start rmmt with --allow-uid {} to allow it", peer.uid, peer.uid),
        ))
    }

    fn may_attach(&self, uid: u32) -> bool {
        uid == self.own_uid || uid == 0 || self.allowed.contains(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_user_root_and_the_listed_ones() {
        let policy = Policy { own_uid: 1000, allowed: vec![1002] };
        for (uid, may) in [(1000, true), (0, true), (1002, true), (1001, false), (u32::MAX, false)] {
            assert_eq!(policy.may_attach(uid), may, "{uid}");
        }
    }

    #[test]
    fn the_kernel_knows_the_other_end() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Policy::new(Vec::new()).admit(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id() as i32);
    }
}
