//! How a classic client learns of a transfer: the protocol leaves that to the clients, so it is a letter beside it.
//!
//! ```text
//!   sender: draft (blocks, receiver's life) ─▶ pre-send answered ─▶ letter ─▶ put +1 ─▶ draft gone
//!   receiver:                                                        recv ◀─ letter, taken +1
//! ```
//! Killed between the transfer and its letter, a sender leaves references in flight that nobody can receive: they stay with
//! the receiver until its end, as the protocol has it. The draft tells the auditor which they may be.

use std::sync::atomic::Ordering::SeqCst;

use crate::control::{
    BOX_LEN, Control, DONE, DRAFT, FROM_LIFE, GOT, INTENT, LETTER, LIFE, PUT, TAKEN, TO_LIFE, advance, count,
};

/// What a draft names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Blocks,
    Nodes,
}

/// The way from one slot to a classic client.
pub struct Way<'a> {
    pub control: &'a Control,
    pub from: usize,
    pub to: usize,
}

/// What arrived.
pub struct Arrived {
    pub nodes: Vec<i64>,
    pub bid: i64,
    pub from_pid: i32,
}

/// What its sender, now dead, had begun to send.
pub struct Draft {
    pub life: u64,
    pub named: Named,
    pub numbers: Vec<u64>,
}

impl Way<'_> {
    fn word(&self, word: usize) -> u64 {
        self.control.letters(self.from, self.to, word).load(SeqCst)
    }

    fn set(&self, word: usize, value: u64) {
        self.control.letters(self.from, self.to, word).store(value, SeqCst);
    }

    pub fn has_room(&self) -> bool {
        self.word(PUT).wrapping_sub(self.word(TAKEN)) < BOX_LEN - 1
    }

    /// Writes down what is about to be sent; the state of the stream after it.
    pub fn begin(&self, life: u64, named: Named, numbers: &[u64], messages: &[u64]) -> u64 {
        let cell = |word| self.control.pair(self.from, self.to, word);
        if cell(TO_LIFE).load(SeqCst) != life {
            cell(TO_LIFE).store(0, SeqCst);
            cell(DONE).store(0, SeqCst);
            cell(INTENT).store(0, SeqCst);
            cell(TO_LIFE).store(life, SeqCst);
        }
        let state = messages.iter().fold(cell(DONE).load(SeqCst), |state, message| {
            let state = advance(state, *message);
            self.control.note(self.from, self.to, 0, count(state), *message);
            state
        });
        cell(INTENT).store(state, SeqCst);
        self.set(DRAFT, life);
        for (i, number) in numbers.iter().enumerate() {
            self.set(DRAFT + 2 + i, *number);
        }
        self.set(DRAFT + 4, u64::from(named == Named::Nodes));
        self.set(DRAFT + 1, numbers.len() as u64);
        state
    }

    /// It was not sent.
    pub fn give_up(&self) {
        let cell = |word| self.control.pair(self.from, self.to, word);
        cell(INTENT).store(cell(DONE).load(SeqCst), SeqCst);
        self.set(DRAFT + 1, 0);
    }

    /// It was sent: tells the receiver.
    pub fn post(&self, life: u64, nodes: &[i64], bid: i64, state: u64) {
        let put = self.word(PUT);
        let at = Control::letter(put);
        self.set(at, life);
        self.set(at + 1, nodes.len() as u64);
        for (i, node) in nodes.iter().enumerate() {
            self.set(at + 2 + i, node.cast_unsigned());
        }
        self.set(at + 4, bid.cast_unsigned());
        self.set(at + 5, std::process::id().into());
        self.set(PUT, put + 1);
        self.set(DRAFT + 1, 0);
        self.control.pair(self.from, self.to, DONE).store(state, SeqCst);
    }

    /// The next letter; those to an earlier life are thrown away. [`Way::taken`] when it is dealt with.
    pub fn next(&self, life: u64) -> Option<Arrived> {
        while self.word(TAKEN) != self.word(PUT) {
            let at = Control::letter(self.word(TAKEN));
            if self.word(at) == life {
                let count = (self.word(at + 1) as usize).min(2);
                return Some(Arrived {
                    nodes: (0..count).map(|i| self.word(at + 2 + i).cast_signed()).collect(),
                    bid: self.word(at + 4).cast_signed(),
                    from_pid: self.word(at + 5) as i32,
                });
            }
            self.set(TAKEN, self.word(TAKEN) + 1);
        }
        None
    }

    /// The letter was dealt with, these are the messages.
    pub fn taken(&self, messages: &[u64]) {
        let cell = |word| self.control.pair(self.to, self.from, word);
        let life = self.control.slot(self.from, LIFE).load(SeqCst);
        if cell(FROM_LIFE).load(SeqCst) != life {
            cell(GOT).store(0, SeqCst);
            cell(FROM_LIFE).store(life, SeqCst);
        }
        let got = messages.iter().fold(cell(GOT).load(SeqCst), |got, message| {
            let got = advance(got, *message);
            self.control.note(self.to, self.from, 1, count(got), *message);
            got
        });
        cell(GOT).store(got, SeqCst);
        self.set(TAKEN, self.word(TAKEN) + 1);
    }

    /// What was begun and neither sent nor given up, as far as anybody can see. Taken off the way.
    pub fn take_draft(&self) -> Option<Draft> {
        let count = (self.word(DRAFT + 1) as usize).min(2);
        let named = if self.word(DRAFT + 4) == 0 { Named::Blocks } else { Named::Nodes };
        let numbers = (0..count).map(|i| self.word(DRAFT + 2 + i)).collect();
        let draft = Draft { life: self.word(DRAFT), named, numbers };
        self.set(DRAFT + 1, 0);
        (count > 0).then_some(draft)
    }
}

// A draft is as long as a letter.
const _: () = assert!(LETTER > 5);
