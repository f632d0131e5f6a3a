//! What keeper and child say to each other: one packet each, at most one descriptor attached.
//!
//! | byte 0 | byte 1 | then | descriptor | direction |
//! |---|---|---|---|---|
//! | 1 deposit | key length | key, note | yes | both: the child's deposits, and those handed to the next child |
//! | 2 withdraw | key length | key | no | child → keeper |
//! | 3 ready | 0 | – | no | child → keeper |
//! | 4 end of deposits | 0 | – | no | keeper → child |
//! | 5 leaving | exit code | – | no | child → keeper: it ends on purpose, with this code; start no other |
//! | 6 dismissed | 0 | – | no | child → keeper: another keeper holds everything |
//! | 7 alive | 0 | – | no | child → keeper: its loop turns |
//! | 8 replace | 0 | – | no | keeper → child: find another keeper and dismiss me |
//! | 9 retire | 0 | – | no | keeper → child: end, another one of you is started from the program's file |
//! | 10 refused | key length | key | no | keeper → child: the descriptor under this key is not held |
//! | 11 held | key length | key | no | keeper → child: what was refused under this key is held now |
//! | 12 complete | 0 | – | no | keeper → child: everything that came before `ready` has been dealt with |
//! | 13 stay | 0 | – | no | child → keeper: no other keeper can be had; go on |

/// Longest key in bytes.
pub const KEY_LEN_MAX: usize = 64;

/// Longest note in bytes.
pub const NOTE_LEN_MAX: usize = 1024;

/// Longest packet.
pub(crate) const PACKET_LEN_MAX: usize = 2 + KEY_LEN_MAX + NOTE_LEN_MAX;

/// A parsed packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Hold this descriptor under this key, instead of what was there.
    Deposit {
        /// What it is called.
        key: String,
        /// What the next child must know about it.
        note: Vec<u8>,
    },
    /// Close what is held under this key.
    Withdraw {
        /// As deposited.
        key: String,
    },
    /// The child serves.
    Ready,
    /// That was all.
    End,
    /// The child ends on purpose.
    Leaving {
        /// Its exit code.
        code: u8,
    },
    /// Another keeper holds everything.
    Dismissed,
    /// The child's loop turns.
    Alive,
    /// Find another keeper.
    Replace,
    /// Make room for the next daemon.
    Retire,
    /// What came under this key is not held.
    Refused {
        /// As deposited.
        key: String,
    },
    /// What was refused under this key is held now.
    Held {
        /// As deposited.
        key: String,
    },
    /// Everything that came before `Ready` has been dealt with.
    Complete,
    /// No other keeper can be had.
    Stay,
}

/// Key or note out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a deposit has a key of 1 to {KEY_LEN_MAX} bytes and a note of at most {NOTE_LEN_MAX}")]
pub struct TooLong;

impl Message {
    /// One packet.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let (tag, key, note): (u8, &str, &[u8]) = match self {
            Self::Deposit { key, note } => (1, key, note),
            Self::Withdraw { key } => (2, key, &[]),
            Self::Refused { key } => (10, key, &[]),
            Self::Held { key } => (11, key, &[]),
            Self::Ready => return Ok(vec![3, 0]),
            Self::End => return Ok(vec![4, 0]),
            Self::Leaving { code } => return Ok(vec![5, *code]),
            Self::Dismissed => return Ok(vec![6, 0]),
            Self::Alive => return Ok(vec![7, 0]),
            Self::Replace => return Ok(vec![8, 0]),
            Self::Retire => return Ok(vec![9, 0]),
            Self::Complete => return Ok(vec![12, 0]),
            Self::Stay => return Ok(vec![13, 0]),
        };
        let key_len = u8::try_from(key.len()).map_err(|_| TooLong)?;
        if key.is_empty() || key.len() > KEY_LEN_MAX || note.len() > NOTE_LEN_MAX {
            return Err(TooLong);
        }
        let mut bytes = vec![tag, key_len];
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(note);
        Ok(bytes)
    }

    /// `None` for anything that [`Message::encode`] does not write.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[tag, key_len], rest) = bytes.split_first_chunk()?;
        if tag == 5 && rest.is_empty() {
            return Some(Self::Leaving { code: key_len });
        }
        let (key, note) = rest.split_at_checked(usize::from(key_len))?;
        let message = match tag {
            1 | 2 | 10 | 11 if key.is_empty() || key.len() > KEY_LEN_MAX || note.len() > NOTE_LEN_MAX => {
                return None;
            }
            1 => Self::Deposit { key: String::from_utf8(key.to_vec()).ok()?, note: note.to_vec() },
            2 if note.is_empty() => Self::Withdraw { key: String::from_utf8(key.to_vec()).ok()? },
            10 if note.is_empty() => Self::Refused { key: String::from_utf8(key.to_vec()).ok()? },
            11 if note.is_empty() => Self::Held { key: String::from_utf8(key.to_vec()).ok()? },
            3 if rest.is_empty() => Self::Ready,
            4 if rest.is_empty() => Self::End,
            6 if rest.is_empty() => Self::Dismissed,
            7 if rest.is_empty() => Self::Alive,
            8 if rest.is_empty() => Self::Replace,
            9 if rest.is_empty() => Self::Retire,
            12 if rest.is_empty() => Self::Complete,
            13 if rest.is_empty() => Self::Stay,
            _ => return None,
        };
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn deposits_come_back(key in "[a-z0-9/]{1,64}", note in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let refused = Message::Refused { key: key.clone() };
            let held = Message::Held { key: key.clone() };
            for message in [Message::Deposit { key: key.clone(), note }, Message::Withdraw { key }, refused, held] {
                let bytes = message.encode().unwrap();
                prop_assert!(bytes.len() <= PACKET_LEN_MAX);
                prop_assert_eq!(Message::decode(&bytes), Some(message));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_encode_to_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(Message::Deposit { key: String::new(), note: vec![] }.encode(), Err(TooLong));
        assert_eq!(Message::Deposit { key: "k".repeat(65), note: vec![] }.encode(), Err(TooLong));
        assert_eq!(Message::Deposit { key: "k".into(), note: vec![0; 1025] }.encode(), Err(TooLong));
    }
}
