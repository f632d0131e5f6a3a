//! A frame that is really written and read: 1080p NV12, A writes all of it, B on the other core reads all of it.
//!
//! The reference is a bare `memcpy` into a buffer that both have mapped, and the same reading loop. The two take turns
//! frame by frame, so that whatever disturbs one disturbs the other. Both tell A the same way that B has finished.

use std::sync::atomic::Ordering;

use baton_client::{Client, Inbox, Sender};

use crate::baton::{Daemon, connect, open};
use crate::board::{Board, Cell, FRAME};
use crate::cases::{Bench, Found};
use crate::error::{Error, step};
use crate::link::Patience;
use crate::machine::{Core, now};
use crate::report::{Row, Target};
use crate::rival::raw;
use crate::role::serve;
use crate::stats::percentile;

/// Which frame of a round counts: on a busy machine most frames are interrupted by others' work for longer than they take.
const QUIET: f64 = 0.2;

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::First);
    let daemon = Daemon::start(&bench.cores, "256MiB", &[])?;
    let (client, _inbox) = connect(daemon.uri(), "writer")?;
    let mut reader = bench.role(Core::Second, &["reader", daemon.uri()])?;
    let sender = open(&client, "reader")?;
    let source: Vec<u8> = (0..FRAME).map(|byte| (byte * 31 % 251) as u8).collect();
    let frames = if bench.quick { 20 } else { 60 };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds() {
        reader.go(frames)?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            b.push(timed(&bench.board, || {
                raw::write(&bench.board, &source);
                bench.board.cell(Cell::Announced).fetch_add(1, Ordering::Release);
                Ok(())
            })?);
            a.push(timed(&bench.board, || write(&client, &sender, &source))?);
        }
        reader.done()?;
        if round > 0 {
            ours.push(percentile(&mut a, QUIET));
            bare.push(percentile(&mut b, QUIET));
        }
    }
    let head = ("frame", "3.1 MB frame written and read".to_owned(), "ns");
    let rows = Row::versus(head, &ours, ("memcpy + read", &bare), Target::Ratio(1.02)).into_iter().collect();
    Ok(Found { rows, ..Found::default() })
}

fn write(client: &Client, sender: &Sender, source: &[u8]) -> Result<(), Error> {
    let mut block = step("allocate", client.alloc(FRAME))?;
    block.copy_from_slice(source);
    step("send", sender.send(block.freeze()))
}

/// Nanoseconds from before the writing until B has read everything.
fn timed(board: &Board, write: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let before = board.cell(Cell::Done).load(Ordering::Acquire);
    let start = now();
    write()?;
    let mut patience = Patience::default();
    while board.cell(Cell::Done).load(Ordering::Acquire) == before {
        patience.look()?;
    }
    Ok((now() - start) as f64)
}

/// The role `reader URI`: one bare frame, one of the pool's, and so on.
pub fn reader(board: &Board, words: &[&str]) -> Result<(), Error> {
    let &[uri] = words else { return Err(Error::new("read", "the daemon is missing")) };
    let (_client, mut inbox) = connect(uri, "reader")?;
    serve(|count| {
        for _ in 0..count {
            let mut patience = Patience::default();
            while board.cell(Cell::Announced).load(Ordering::Acquire)
                == board.cell(Cell::Done).load(Ordering::Relaxed) / 2
            {
                patience.look()?;
            }
            done(board, raw::read(board, sum));
            done(board, receive(&mut inbox)?);
        }
        Ok(0.0)
    })
}

fn receive(inbox: &mut Inbox) -> Result<u64, Error> {
    let mut patience = Patience::default();
    loop {
        if let Some(delivery) = step("receive", inbox.try_recv())? {
            return Ok(sum(&delivery.block)); // dropped here, before A learns of it
        }
        patience.look()?;
    }
}

fn done(board: &Board, sum: u64) {
    board.cell(Cell::Sum).fetch_add(sum, Ordering::Relaxed);
    board.cell(Cell::Done).fetch_add(1, Ordering::Release);
}

/// Looks at every byte.
#[inline(never)]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}
