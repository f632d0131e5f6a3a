//! What a case does with any of the variants: send, and receive by polling or sleeping.
//!
//! The loops are generic, so that each variant is compiled into them as into a user's program.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::machine::now;

/// One end of a connection between two processes (or two ends within one).
pub trait Link {
    /// Gets a block, does not touch it, hands it over. `false`: the receiver's queue is full, nothing happened.
    fn send(&mut self) -> Result<bool, Error>;

    /// Receives one message and gives its block back. `false`: there is none.
    fn poll(&mut self) -> Result<bool, Error>;

    /// Sleeps until there is a message, receives it and gives its block back.
    fn wait(&mut self) -> Result<(), Error>;
}

/// How a receiver waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It looks again and again.
    Polling,
    /// It sleeps.
    Sleeping,
}

/// A peer that does not answer for so long has died or is stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at the clock only now and then.
#[derive(Debug, Default)]
pub struct Patience {
    looks: u32,
    since: Option<Instant>,
}

impl Patience {
    /// One more fruitless look.
    #[inline]
    pub fn look(&mut self) -> Result<(), Error> {
        std::hint::spin_loop();
        self.looks += 1;
        if self.looks.is_multiple_of(1 << 20) { self.check() } else { Ok(()) }
    }

    #[cold]
    fn check(&mut self) -> Result<(), Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            return Err(Error::new("hear from the other process", "it has not answered for 20 s"));
        }
        Ok(())
    }
}

#[inline]
fn receive(link: &mut impl Link, waiting: Waiting) -> Result<(), Error> {
    match waiting {
        Waiting::Sleeping => link.wait(),
        Waiting::Polling => {
            let mut patience = Patience::default();
            while !link.poll()? {
                patience.look()?;
            }
            Ok(())
        }
    }
}

#[inline]
fn send(link: &mut impl Link) -> Result<(), Error> {
    let mut patience = Patience::default();
    while !link.send()? {
        patience.look()?;
    }
    Ok(())
}

/// A's side of ping-pong: nanoseconds *one way* in each of `chunks` stretches of `each` round trips.
pub fn ping(link: &mut impl Link, waiting: Waiting, chunks: usize, each: usize) -> Result<Vec<f64>, Error> {
    let mut found = Vec::with_capacity(chunks);
    for _ in 0..chunks {
        let start = now();
        for _ in 0..each {
            send(link)?;
            receive(link, waiting)?;
        }
        found.push((now() - start) as f64 / (2 * each) as f64);
    }
    Ok(found)
}

/// B's side: answers `count` times.
pub fn echo(link: &mut impl Link, waiting: Waiting, count: usize) -> Result<(), Error> {
    for _ in 0..count {
        receive(link, waiting)?;
        send(link)?;
    }
    Ok(())
}

/// One process that sends to itself: nanoseconds per whole cycle in each of `chunks` stretches.
pub fn cycle(link: &mut impl Link, chunks: usize, each: usize) -> Result<Vec<f64>, Error> {
    let mut found = Vec::with_capacity(chunks);
    for _ in 0..chunks {
        let start = now();
        for _ in 0..each {
            send(link)?;
            receive(link, Waiting::Polling)?;
        }
        found.push((now() - start) as f64 / each as f64);
    }
    Ok(found)
}
