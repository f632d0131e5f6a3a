//! What master and worker say to each other, one packet each.
//!
//! | bytes | from | meaning |
//! |---|---|---|
//! | `1, u64 id, u16 listener, text` + one descriptor | master | a connection; the text is the peer's address, empty for Unix |
//! | `2` | worker | ready: its set-up is done |
//! | `3, u64 id` | worker | taken: the connection is the worker's |
//! | `4, u64 id` | worker | refused: it could not be received |
//!
//! Little-endian. Both ends are the same binary, but a worker runs code that talks to strangers, so the master treats
//! what it says as a claim: what does not parse, or names a connection that the worker was not given, is ignored.

use crate::{ConnectionId, Peer};

/// Longest packet: an IPv6 address with scope and port is below 80 characters.
pub(crate) const MAX_LEN: usize = 128;

const GIVE: u8 = 1;
const READY: u8 = 2;
const TAKEN: u8 = 3;
const REFUSED: u8 = 4;

/// A connection on its way to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Give {
    pub id: ConnectionId,
    pub listener: u16,
    pub peer: Peer,
}

impl Give {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![GIVE];
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.listener.to_le_bytes());
        if let Peer::Tcp(address) = self.peer {
            bytes.extend_from_slice(address.to_string().as_bytes());
        }
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Option<Give> {
        let (&GIVE, rest) = bytes.split_first()? else { return None };
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (listener, text) = rest.split_first_chunk::<2>()?;
        let peer = match std::str::from_utf8(text).ok()? {
            "" => Peer::Unix,
            address => Peer::Tcp(address.parse().ok()?),
        };
        let id = ConnectionId(u64::from_le_bytes(*id));
        Some(Give { id, listener: u16::from_le_bytes(*listener), peer })
    }
}

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ready,
    Taken(ConnectionId),
    Refused(ConnectionId),
}

impl Word {
    pub fn encode(self) -> Vec<u8> {
        let with_id = |tag: u8, id: ConnectionId| {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&id.0.to_le_bytes());
            bytes
        };
        match self {
            Word::Ready => vec![READY],
            Word::Taken(id) => with_id(TAKEN, id),
            Word::Refused(id) => with_id(REFUSED, id),
        }
    }

    pub fn parse(bytes: &[u8]) -> Option<Word> {
        let (&tag, rest) = bytes.split_first()?;
        let id = || rest.try_into().ok().map(|id| ConnectionId(u64::from_le_bytes(id)));
        match tag {
            READY if rest.is_empty() => Some(Word::Ready),
            TAKEN => id().map(Word::Taken),
            REFUSED => id().map(Word::Refused),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for peer in
            [Peer::Unix, Peer::Tcp("127.0.0.1:80".parse().unwrap()), Peer::Tcp("[::1]:1".parse().unwrap())]
        {
            let give = Give { id: ConnectionId(u64::MAX), listener: 513, peer };
            assert!(give.encode().len() <= MAX_LEN);
            assert_eq!(Give::parse(&give.encode()), Some(give));
        }
        for word in [Word::Ready, Word::Taken(ConnectionId(7)), Word::Refused(ConnectionId(8))] {
            assert_eq!(Word::parse(&word.encode()), Some(word));
        }
    }

    #[test]
    fn nonsense_is_not() {
        let give = Give { id: ConnectionId(1), listener: 2, peer: Peer::Unix }.encode();
        for len in 0..give.len() {
            assert_eq!(Give::parse(&give[..len]), None);
        }
        assert_eq!(Give::parse(&[&give[..], b"no address"].concat()), None);
        for bytes in [&b""[..], b"\x02\x00", b"\x03", b"\x03\0\0\0\0\0\0\0\0\0", b"\x09"] {
            assert_eq!(Word::parse(bytes), None);
        }
    }
}
