//! The floors: what the hardware and the kernel ask for, without any ownership.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex;

use crate::board::{Board, Cell};
use crate::error::Error;
use crate::link::{Link, Patience};

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Throws first.
    A,
    /// Answers.
    B,
}

/// One cache line to and fro.
#[derive(Debug)]
pub struct Line {
    board: Board,
    mine: Cell,
    theirs: Cell,
    sent: u64,
    received: u64,
}

impl Line {
    /// The counts go on from where the cells are.
    pub fn new(board: Board, side: Side) -> Self {
        let (mine, theirs) = match side {
            Side::A => (Cell::Ping, Cell::Pong),
            Side::B => (Cell::Pong, Cell::Ping),
        };
        let sent = board.cell(mine).load(Ordering::Acquire);
        let received = board.cell(theirs).load(Ordering::Acquire);
        Self { board, mine, theirs, sent, received }
    }
}

impl Link for Line {
    #[inline]
    fn send(&mut self) -> Result<bool, Error> {
        self.sent += 1;
        self.board.cell(self.mine).store(self.sent, Ordering::Release);
        Ok(true)
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, Error> {
        let there = self.board.cell(self.theirs).load(Ordering::Acquire) > self.received;
        self.received += u64::from(there);
        Ok(there)
    }

    fn wait(&mut self) -> Result<(), Error> {
        let mut patience = Patience::default();
        while !self.poll()? {
            patience.look()?;
        }
        Ok(())
    }
}

/// A shared futex to and fro: the cheapest way to wake another process.
#[derive(Debug)]
pub struct Futex {
    board: Board,
    mine: Cell,
    theirs: Cell,
    received: u32,
}

impl Futex {
    /// The counts go on from where the cells are.
    pub fn new(board: Board, side: Side) -> Self {
        let (mine, theirs) = match side {
            Side::A => (Cell::FutexPing, Cell::FutexPong),
            Side::B => (Cell::FutexPong, Cell::FutexPing),
        };
        let received = board.futex(theirs).load(Ordering::Acquire);
        Self { board, mine, theirs, received }
    }

    fn there(&self) -> &AtomicU32 {
        self.board.futex(self.theirs)
    }
}

impl Link for Futex {
    #[inline]
    fn send(&mut self) -> Result<bool, Error> {
        let cell = self.board.futex(self.mine);
        cell.fetch_add(1, Ordering::SeqCst);
        let woken = futex::wake(cell, futex::Flags::empty(), 1);
        woken.map(|_| true).map_err(|errno| Error::new("wake by futex", errno))
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, Error> {
        let there = self.there().load(Ordering::Acquire) != self.received;
        self.received = self.received.wrapping_add(u32::from(there));
        Ok(there)
    }

    #[inline]
    fn wait(&mut self) -> Result<(), Error> {
        while !self.poll()? {
            match futex::wait(self.there(), futex::Flags::empty(), self.received, None) {
                Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::new("wait on a futex", errno)),
            }
        }
        Ok(())
    }
}
