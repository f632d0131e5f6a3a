//! Who may attach: decided by what the kernel says about the peer, before a byte of it is read.
//!
//! Over un:// that is user and group, over ip:// nothing but the address. So a rule for ip:// is about an address, and
//! what it bounds, it bounds for all clients there together: a pid that is only claimed can be claimed anew at will.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::str::FromStr;

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

/// What classic clients at one address may do, all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpGrant {
    /// Bytes that they may hold, 0 for all there are.
    pub(crate) quota: u64,
    /// Connections that they may have, 0 for as many as the daemon takes.
    pub(crate) connections: usize,
}

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    first: IpAddr,
    bits: u32,
}

impl Net {
    fn contains(self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                (first.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                (first.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address and no network; write 127.0.0.1, 10.0.0.0/8 or ::1");
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse::<u32>().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { first, bits }) }
    }
}

/// Whom a grant over ip:// is for.
#[derive(Debug, Clone)]
pub(crate) struct IpRule {
    pub(crate) net: Net,
    pub(crate) grant: IpGrant,
}

/// Who may attach: the first rule that fits counts.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    ip_rules: Vec<IpRule>,
    /// For everybody who reaches an ip:// listener, if there is no rule for ip://.
    ip_default: IpGrant,
}

impl Policy {
    /// `ip_default` is for all addresses if there are no `ip_rules`; otherwise nobody comes in whom none fits.
    pub(crate) fn new(rules: Vec<Rule>, ip_rules: Vec<IpRule>, ip_default: IpGrant) -> Self {
        Self { rules, ip_rules, ip_default }
    }

    /// What a classic client at this address may do, if it may come in.
    pub(crate) fn admit_ip(&self, address: IpAddr) -> Option<IpGrant> {
        if self.ip_rules.is_empty() {
            return Some(self.ip_default);
        }
        self.ip_rules.iter().find(|rule| rule.net.contains(address)).map(|rule| rule.grant)
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
        let of_users = self.rules.iter().map(|rule| rule.grant.quota);
        let of_addresses = self.ip_rules.iter().map(|rule| rule.grant.quota).chain([self.ip_default.quota]);
        of_users.chain(of_addresses).any(|quota| quota != 0)
    }

    pub(crate) fn grant(&self, uid: u32, gid: u32) -> Option<Grant> {
        let fits = |rule: &&Rule| {
            rule.uid.is_none_or(|wanted| wanted == uid) && rule.gid.is_none_or(|wanted| wanted == gid)
        };
        self.rules.iter().find(fits).map(|rule| rule.grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYBODY: IpGrant = IpGrant { quota: 0, connections: 0 };

    fn users(rules: Vec<Rule>) -> Policy {
        Policy::new(rules, Vec::new(), ANYBODY)
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let reads = Grant { writes: false, quota: 5 };
        let writes = Grant { writes: true, quota: 0 };
        let rule = |uid, gid, grant| Rule { uid, gid, grant };
        let policy = users(vec![
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
        let (peer, found) = users(vec![Rule { uid, gid: None, grant }]).admit(&ours).unwrap();
        assert_eq!((peer.pid, found), (std::process::id() as i32, grant));
        assert!(users(Vec::new()).admit(&ours).is_err());
    }

    #[test]
    fn addresses_are_admitted_by_the_first_rule_that_fits_or_all_if_there_is_none() {
        let grant = |quota| IpGrant { quota, connections: 3 };
        let rule = |net: &str, quota| IpRule { net: net.parse().unwrap(), grant: grant(quota) };
        let rules =
            vec![rule("127.0.0.1", 1), rule("127.0.0.0/8", 2), rule("fd00::/9", 3), rule("10.1.0.0/15", 4)];
        let policy = Policy::new(Vec::new(), rules, ANYBODY);
        for (address, quota) in [
            ("127.0.0.1", Some(1)),
            ("::ffff:127.0.0.1", Some(1)),
            ("127.1.2.3", Some(2)),
            ("fd7f::1", Some(3)),
            ("fd80::1", None),
            ("10.1.255.255", Some(4)),
            ("10.0.0.1", Some(4)),
            ("::1", None),
        ] {
            assert_eq!(policy.admit_ip(address.parse().unwrap()), quota.map(grant), "{address}");
        }
        let everybody = Policy::new(Vec::new(), vec![rule("0.0.0.0/0", 9)], ANYBODY);
        assert_eq!(everybody.admit_ip("192.0.2.1".parse().unwrap()), Some(grant(9)));
        assert_eq!(everybody.admit_ip("::1".parse().unwrap()), None);
        assert_eq!(users(Vec::new()).admit_ip("192.0.2.1".parse().unwrap()), Some(ANYBODY));
        for wrong in ["", "here", "127.0.0.1/33", "::1/129", "1.2.3/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Net>().unwrap_err().contains("10.0.0.0/8"), "{wrong}");
        }
        assert!(Policy::new(Vec::new(), Vec::new(), grant(1)).has_quotas());
    }
}
