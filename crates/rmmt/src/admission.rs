//! Who may attach: decided by what the kernel says about the peer, before a byte of it is read.

use std::os::fd::AsFd;

use baton_fdpass::{PeerCredentials, peer_credentials};
use baton_wire::attach::{ErrorCode, Failure};

/// What somebody may do who was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Otherwise its members are readers.
    pub(crate) writes: bool,
    /// Bytes that its process may hold, 0 for all there are.
    pub(crate) quota: u64,
}

/// Whom a grant is for: every number that is named must be the peer's.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) grant: Grant,
}

/// The users that may attach: the first rule that fits counts.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Who the peer is and what it may do, if it may come in. The refusal says what to do; it tells nothing that `ls -l`
    /// of the socket would not.
    pub(crate) fn admit(&self, socket: impl AsFd) -> Result<(PeerCredentials, Grant), Failure> {
        let peer = peer_credentials(socket).map_err(|error| {
            tracing::warn!("rmmt: a peer without credentials is refused: {error}");
            Failure::new(
                ErrorCode::Denied,
                "the kernel does not say who you are; attach from this host's namespace",
            )
        })?;
        if let Some(grant) = self.grant(peer.uid, peer.gid) {
            return Ok((peer, grant));
        }
        tracing::warn!(
            "rmmt: refused pid={} of user {} and group {}: no rule admits them",
            peer.pid,
            peer.uid,
            peer.gid
        );
        Err(Failure::new(
            ErrorCode::Denied,
            format!(
                "user {} may not attach; start rmmt with --allow-uid {}, or with a rule [[admit]] in its --config",
                peer.uid, peer.uid
            ),
        ))
    }

    /// Whether anybody has a quota.
    pub(crate) fn has_quotas(&self) -> bool {
        self.rules.iter().any(|rule| rule.grant.quota != 0)
    }

    fn grant(&self, uid: u32, gid: u32) -> Option<Grant> {
        let fits = |rule: &&Rule| {
            rule.uid.is_none_or(|wanted| wanted == uid) && rule.gid.is_none_or(|wanted| wanted == gid)
        };
        self.rules.iter().find(fits).map(|rule| rule.grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let reads = Grant { writes: false, quota: 5 };
        let writes = Grant { writes: true, quota: 0 };
        let rule = |uid, gid, grant| Rule { uid, gid, grant };
        let policy = Policy::new(vec![
            rule(Some(1002), Some(44), writes),
            rule(Some(1002), None, reads),
            rule(None, Some(50), reads),
            rule(Some(1000), None, writes),
        ]);
        for (uid, gid, grant) in [
            (1002, 44, Some(writes)),
            (1002, 45, Some(reads)),
            (7, 50, Some(reads)),
            (1000, 50, Some(reads)),
            (1000, 1, Some(writes)),
            (1001, 1, None),
            (u32::MAX, u32::MAX, None),
        ] {
            assert_eq!(policy.grant(uid, gid), grant, "{uid}:{gid}");
        }
    }

    #[test]
    fn the_kernel_knows_the_other_end() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let grant = Grant { writes: true, quota: 7 };
        let uid = Some(rustix::process::geteuid().as_raw());
        let (peer, found) = Policy::new(vec![Rule { uid, gid: None, grant }]).admit(&ours).unwrap();
        assert_eq!((peer.pid, found), (std::process::id() as i32, grant));
        assert!(Policy::new(Vec::new()).admit(&ours).is_err());
    }
}
