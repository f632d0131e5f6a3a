//! The cases, each a question with its answer in a few rows.

mod attach;
mod chain;
mod cycle;
mod frame;
mod hand_over;
mod reserve;
mod scaling;
mod stream;
mod wake;

use crate::board::Board;
use crate::error::Error;
use crate::machine::{Core, Cores};
use crate::report::{Row, Series};
use crate::rival::iox::Place;
use crate::role::Role;

/// What every case works with.
#[derive(Debug)]
pub struct Bench {
    /// Shared with the children.
    pub board: Board,
    /// Where to run.
    pub cores: Cores,
    /// iceoryx2's files.
    pub place: Place,
    /// Whether a minute must do.
    pub quick: bool,
}

/// What A does between two messages to sleepers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It rests, so that everybody sleeps long and finds cold caches.
    Rested,
    /// It sends the next as soon as the last has arrived.
    AtOnce,
}

impl Pace {
    /// Until message `number` has arrived, at least.
    pub fn pause(self, board: &Board, number: usize) -> Result<(), Error> {
        match self {
            Self::Rested => board.rest_until_stamped(number),
            Self::AtOnce => board.yield_until_stamped(number),
        }
    }
}

/// What a case found.
#[derive(Debug, Default)]
pub struct Found {
    /// Lines of the table.
    pub rows: Vec<Row>,
    /// Points of the plots.
    pub series: Vec<Series>,
}

/// A case: its name for `--only`, and how to measure it.
pub type Case = (&'static str, fn(&Bench) -> Result<Found, Error>);

/// All of them, in the order of the table.
pub const ALL: &[Case] = &[
    ("hand-over", hand_over::measure),
    ("cycle", cycle::cycle),
    ("alloc", cycle::alloc),
    ("chain", chain::measure),
    ("wake", wake::asleep),
    ("spin", wake::spinning),
    ("calls", wake::calls),
    ("frame", frame::measure),
    ("memory", reserve::measure),
    ("attach", attach::measure),
    ("stream", stream::measure),
    ("processes", scaling::processes),
    ("blocks", scaling::blocks),
];

/// Payloads: a message, a page, a frame.
pub const SIZES: [(usize, &str); 3] = [(64, "64 B"), (4096, "4 KiB"), (crate::board::FRAME, "3.1 MB")];

impl Bench {
    /// How often the variants take turns.
    pub fn rounds(&self) -> usize {
        if self.quick { 15 } else { 41 }
    }

    /// Starts a child and waits until it is ready.
    pub fn role(&self, core: Core, words: &[&str]) -> Result<Role, Error> {
        let run = std::process::id().to_string();
        let mut all = vec![words[0], core.word(), &run];
        all.extend(&words[1..]);
        Role::start(&self.board, &self.cores, &all)
    }
}

/// The side that a child plays; `words`: role, core, run, and the role's own.
pub fn play(words: &[String]) -> Result<(), Error> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [role, core, run, own @ ..] = words.as_slice() else {
        return Err(Error::new("play a role", "which one?"));
    };
    let cores = Cores::allowed();
    cores.pin(Core::parse(core));
    let place = Place::of(run.parse().unwrap_or(0));
    match *role {
        "echo" => hand_over::echo(&Board::of_parent()?, &place, own),
        "relay" => chain::relay(&Board::of_parent()?, &place, own),
        "sink" => chain::sink(&Board::of_parent()?, &place, own),
        "original" => chain::original_daemon(own),
        "wake" => wake::wake(&Board::of_parent()?, &place, own),
        "sleepy-echo" => wake::sleepy_echo(own),
        "duel" => wake::duel(&Board::of_parent()?, own),
        "idle" => scaling::idle(own),
        "drain" => stream::drain(&place, own),
        "reader" => frame::reader(&Board::of_parent()?, own),
        _ => Err(Error::new(
            "play a role",
            format!("{role:?} is none; roles are started by the command itself"),
        )),
    }
}
