//! What keeper and daemon say to each other: any packet is refused, or says exactly what was written.

use baton_keeper::{KEY_LEN_MAX, Message, NOTE_LEN_MAX};

pub fn run(data: &[u8]) {
    let Some(message) = Message::decode(data) else { return };
    if let Message::Deposit { key, .. } | Message::Withdraw { key } | Message::Refused { key } = &message {
        assert!((1..=KEY_LEN_MAX).contains(&key.len()), "a bound that is not kept");
    }
    if let Message::Deposit { note, .. } = &message {
        assert!(note.len() <= NOTE_LEN_MAX, "a bound that is not kept");
    }
    assert_eq!(message.encode().expect("what was accepted once"), data);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let key = || "pool/metadata".to_owned();
    let messages = [
        Message::Deposit { key: key(), note: b"{\"lives\":3}".to_vec() },
        Message::Deposit { key: "k".repeat(KEY_LEN_MAX), note: vec![7; NOTE_LEN_MAX] },
        Message::Withdraw { key: key() },
        Message::Refused { key: key() },
        Message::Leaving { code: 78 },
        Message::Ready,
        Message::End,
        Message::Dismissed,
        Message::Alive,
        Message::Replace,
        Message::Retire,
    ];
    messages.iter().map(|message| message.encode().expect("short")).collect()
}
