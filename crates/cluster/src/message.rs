//! What master and worker say to each other, one packet each.
//!
//! | bytes | from | meaning |
//! |---|---|---|
//! | `1, u8 count, count × connection` + as many descriptors | master | connections |
//! | `5, u32 slot, u32 workers, u32 connections, u32 per address, u8 flags, u16 listeners` + the load page and as many listening sockets | master | the first message: who the worker is; flag 1: loopback addresses count as well |
//! | `2` | worker | ready: its set-up is done |
//! | `3, u64 id …` | worker | taken: these connections are the worker's |
//! | `4, u64 id …` | worker | refused: these could not be received |
//! | `6, u64 id …` | worker | closed: of those that the master wanted to hear about |
//! | `7` | worker | a connection was closed, as the master wished to know |
//!
//! A connection is `u64 id, u16 listener, u8 flags, u8 kind, address`; flag 1: the master wants to hear when it is closed;
//! kind 0: Unix, no address; 4: `4 bytes, u16 port`; 6: `16 bytes, u16 port, u32 flow, u32 scope`.
//!
//! Little-endian. Both ends are the same binary, but a worker runs code that talks to strangers, so the master treats
//! what it says as a claim: what does not parse, or names a connection that the worker was not given, is ignored.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::{ConnectionId, Peer};

/// Connections in one message. More would save little: the system call and the wake-up are already shared by so many.
pub(crate) const BATCH: usize = 16;
/// Longest packet.
pub(crate) const MAX_LEN: usize = 2 + BATCH * 38;
/// Numbers of connections in one packet of a worker.
const IDS_MAX: usize = 64;

const GIVE: u8 = 1;
const READY: u8 = 2;
const TAKEN: u8 = 3;
const REFUSED: u8 = 4;
const HELLO: u8 = 5;
const CLOSED: u8 = 6;
const ROOM: u8 = 7;

const TELL: u8 = 1;
const LOOPBACK: u8 = 1;

/// A connection on its way to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Give {
    pub id: ConnectionId,
    pub listener: u16,
    pub peer: Peer,
    /// The master wants to hear when it is closed.
    pub tell: bool,
}

impl Give {
    pub fn encode_all<'a>(gives: impl ExactSizeIterator<Item = &'a Give>) -> Vec<u8> {
        let mut bytes = vec![GIVE, u8::try_from(gives.len()).unwrap_or(u8::MAX)];
        for give in gives {
            give.encode(&mut bytes);
        }
        bytes
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.listener.to_le_bytes());
        bytes.push(if self.tell { TELL } else { 0 });
        match self.peer {
            Peer::Unix => bytes.push(0),
            Peer::Tcp(SocketAddr::V4(address)) => {
                bytes.push(4);
                bytes.extend_from_slice(&address.ip().octets());
                bytes.extend_from_slice(&address.port().to_le_bytes());
            }
            Peer::Tcp(SocketAddr::V6(address)) => {
                bytes.push(6);
                bytes.extend_from_slice(&address.ip().octets());
                bytes.extend_from_slice(&address.port().to_le_bytes());
                bytes.extend_from_slice(&address.flowinfo().to_le_bytes());
                bytes.extend_from_slice(&address.scope_id().to_le_bytes());
            }
        }
    }

    pub fn parse_all(bytes: &[u8]) -> Option<Vec<Give>> {
        let mut reader = Reader(bytes);
        let [GIVE, count] = reader.take::<2>()? else { return None };
        let count = usize::from(count);
        if count == 0 || count > BATCH {
            return None;
        }
        let gives = (0..count).map(|_| Give::parse(&mut reader)).collect::<Option<Vec<_>>>()?;
        reader.0.is_empty().then_some(gives)
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Give> {
        let id = ConnectionId(u64::from_le_bytes(reader.take()?));
        let listener = u16::from_le_bytes(reader.take()?);
        let [flags, kind] = reader.take()?;
        let peer = match kind {
            0 => Peer::Unix,
            4 => {
                let (ip, port) = (Ipv4Addr::from(reader.take::<4>()?), u16::from_le_bytes(reader.take()?));
                Peer::Tcp(SocketAddrV4::new(ip, port).into())
            }
            6 => {
                let (ip, port) = (Ipv6Addr::from(reader.take::<16>()?), u16::from_le_bytes(reader.take()?));
                let (flow, scope) = (u32::from_le_bytes(reader.take()?), u32::from_le_bytes(reader.take()?));
                Peer::Tcp(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => return None,
        };
        Some(Give { id, listener, peer, tell: flags & TELL != 0 })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }
}

/// The first message: who the worker is, and what it must keep to if it accepts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub slot: u32,
    pub workers: u32,
    pub connections_max: u32,
    pub per_address_max: u32,
    pub count_loopback: bool,
    /// Listening sockets that come with it: 0 if the master accepts.
    pub listeners: u16,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![HELLO];
        for number in [self.slot, self.workers, self.connections_max, self.per_address_max] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(if self.count_loopback { LOOPBACK } else { 0 });
        bytes.extend_from_slice(&self.listeners.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Option<Hello> {
        let mut reader = Reader(bytes);
        let [HELLO] = reader.take()? else { return None };
        let mut number = || reader.take().map(u32::from_le_bytes);
        let (slot, workers, connections_max, per_address_max) = (number()?, number()?, number()?, number()?);
        let [flags] = reader.take()?;
        let listeners = u16::from_le_bytes(reader.take()?);
        let count_loopback = flags & LOOPBACK != 0;
        reader.0.is_empty().then_some(Hello {
            slot,
            workers,
            connections_max,
            per_address_max,
            count_loopback,
            listeners,
        })
    }
}

/// What a worker says. Lists are of any length here; one packet holds [`IDS_MAX`] numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ready,
    Taken(Vec<ConnectionId>),
    Refused(Vec<ConnectionId>),
    Closed(Vec<ConnectionId>),
    Room,
}

impl Word {
    /// The packets that say it.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let with_ids = |tag: u8, ids: &[ConnectionId]| {
            let packet = |ids: &[ConnectionId]| {
                let mut bytes = vec![tag];
                ids.iter().for_each(|id| bytes.extend_from_slice(&id.0.to_le_bytes()));
                bytes
            };
            ids.chunks(IDS_MAX).map(packet).collect()
        };
        match self {
            Word::Ready => vec![vec![READY]],
            Word::Room => vec![vec![ROOM]],
            Word::Taken(ids) => with_ids(TAKEN, ids),
            Word::Refused(ids) => with_ids(REFUSED, ids),
            Word::Closed(ids) => with_ids(CLOSED, ids),
        }
    }

    pub fn parse(bytes: &[u8]) -> Option<Word> {
        let (&tag, rest) = bytes.split_first()?;
        let ids = || {
            let (numbers, odd) = rest.as_chunks::<8>();
            let ids = numbers.iter().map(|number| ConnectionId(u64::from_le_bytes(*number))).collect();
            (odd.is_empty() && !numbers.is_empty()).then_some(ids)
        };
        match tag {
            READY if rest.is_empty() => Some(Word::Ready),
            ROOM if rest.is_empty() => Some(Word::Room),
            TAKEN => ids().map(Word::Taken),
            REFUSED => ids().map(Word::Refused),
            CLOSED => ids().map(Word::Closed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gives(count: usize) -> Vec<Give> {
        let peers = ["127.0.0.1:80", "[fe80::1%7]:1", "[2001:db8::1]:65535"]
            .map(|text| Peer::Tcp(text.parse().unwrap()));
        let peer = |n: usize| if n % 4 == 3 { Peer::Unix } else { peers[n % 4] };
        (0..count)
            .map(|n| Give {
                id: ConnectionId(u64::MAX - n as u64),
                listener: 513,
                peer: peer(n),
                tell: n % 2 == 0,
            })
            .collect()
    }

    #[test]
    fn what_is_said_is_understood() {
        for count in 1..=BATCH {
            let gives = gives(count);
            let bytes = Give::encode_all(gives.iter());
            assert!(bytes.len() <= MAX_LEN);
            assert_eq!(Give::parse_all(&bytes), Some(gives));
        }
        let ids = |count| (0..count).map(ConnectionId).collect::<Vec<_>>();
        for word in
            [Word::Ready, Word::Room, Word::Taken(ids(1)), Word::Refused(ids(16)), Word::Closed(ids(64))]
        {
            let packets = word.encode();
            assert!(packets.len() == 1 && packets[0].len() <= MAX_LEN);
            assert_eq!(Word::parse(&packets[0]), Some(word));
        }
        assert_eq!(Word::Closed(ids(150)).encode().len(), 3);
        let hello = Hello {
            slot: 7,
            workers: 9,
            connections_max: 1,
            per_address_max: u32::MAX,
            count_loopback: true,
            listeners: 3,
        };
        assert_eq!(Hello::parse(&hello.encode()), Some(hello));
    }

    #[test]
    fn nonsense_is_not() {
        let bytes = Give::encode_all(gives(4).iter());
        for len in 0..bytes.len() {
            assert_eq!(Give::parse_all(&bytes[..len]), None);
        }
        assert_eq!(Give::parse_all(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Give::parse_all(&[GIVE, 0]), None);
        assert_eq!(Give::parse_all(&Give::encode_all(gives(BATCH + 1).iter())), None);
        let odd: [&[u8]; 7] =
            [b"", b"\x02\x00", b"\x03", b"\x03\0\0\0\0\0\0\0\0\0", b"\x09", b"\x06", b"\x07\0"];
        for bytes in odd {
            assert_eq!(Word::parse(bytes), None);
        }
        assert_eq!(Hello::parse(&[HELLO; 3]), None);
    }
}
