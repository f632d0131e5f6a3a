//! How many connections each address has open.
//!
//! An address is one IPv4 address, or the /64 of an IPv6 one, since a single host is commonly given a whole /64. Unix
//! peers have no address; loopback ones are not counted unless asked for, since a proxy on this host speaks for all of its
//! clients. The table holds as many entries as there are addresses with open connections, never more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::Peer;

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressKey {
    V4(Ipv4Addr),
    /// The upper half.
    V6(u64),
}

#[derive(Debug)]
pub(crate) struct Addresses {
    max: u32,
    loopback: bool,
    counts: HashMap<AddressKey, u32>,
}

impl Addresses {
    pub fn new(max: u32, loopback: bool) -> Addresses {
        Addresses { max, loopback, counts: HashMap::new() }
    }

    /// Under which key a peer is counted, if it is.
    pub fn key(&self, peer: Peer) -> Option<AddressKey> {
        let Peer::Tcp(address) = peer else { return None };
        let ip = address.ip().to_canonical();
        if self.max == u32::MAX || (ip.is_loopback() && !self.loopback) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => AddressKey::V4(ip),
            IpAddr::V6(ip) => AddressKey::V6((ip.to_bits() >> 64) as u64),
        })
    }

    /// Counts one more, or says that there are enough.
    pub fn admit(&mut self, key: AddressKey) -> bool {
        let count = self.counts.entry(key).or_insert(0);
        let admitted = *count < self.max;
        *count += u32::from(admitted);
        admitted
    }

    pub fn release(&mut self, key: AddressKey) {
        let Some(count) = self.counts.get_mut(&key) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Peer {
        Peer::Tcp(text.parse().unwrap())
    }

    #[test]
    fn one_address_is_a_v4_address_or_a_v6_network() {
        let addresses = Addresses::new(1, false);
        let key = |text| addresses.key(tcp(text));
        assert_eq!(key("192.0.2.1:1"), key("192.0.2.1:2"));
        assert_eq!(key("192.0.2.1:1"), key("[::ffff:192.0.2.1]:1"));
        assert_ne!(key("192.0.2.1:1"), key("192.0.2.2:1"));
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::ffff:1]:1"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8:0:1::1]:1"));
        for exempt in [Peer::Unix, tcp("127.0.0.1:1"), tcp("[::1]:1"), tcp("[::ffff:127.0.0.1]:1")] {
            assert_eq!(addresses.key(exempt), None);
        }
        assert!(Addresses::new(1, true).key(tcp("127.0.0.1:1")).is_some());
    }

    #[test]
    fn what_is_released_can_be_had_again_and_leaves_nothing_behind() {
        let mut addresses = Addresses::new(2, false);
        let [one, other] = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| addresses.key(tcp(text)).unwrap());
        assert!(addresses.admit(one) && addresses.admit(one) && !addresses.admit(one));
        assert!(addresses.admit(other));
        addresses.release(one);
        assert!(addresses.admit(one) && !addresses.admit(one));
        for key in [one, one, one, other] {
            addresses.release(key);
        }
        assert!(addresses.counts.is_empty());
    }
}
