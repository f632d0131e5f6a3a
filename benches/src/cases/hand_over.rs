//! One way from A to B, each on a core of its own, both polling: allocation, hand-over with crash-safe ownership, release.
//!
//! A ball goes to and fro; half of the time of a round trip is one way. The payload is not touched: what is measured is
//! the hand-over, which must not depend on the size. Floor: the same with one bare cache line.

use crate::baton::{BatonLink, Daemon};
use crate::board::Board;
use crate::cases::{Bench, Found, SIZES};
use crate::error::Error;
use crate::link::{Link, Waiting, ping};
use crate::machine::Core;
use crate::report::{Row, Target};
use crate::rival::floor::{Line, Side};
use crate::rival::iox::{Depth, IoxLink, Place};
use crate::role::{Role, serve};
use crate::stats::median;

const CHUNKS: usize = 40;
const EACH: usize = 100;

/// A's end and its peer.
struct Pair<L> {
    link: L,
    peer: Role,
}

impl<L: Link> Pair<L> {
    /// One round: the median stretch.
    fn round(&mut self) -> Result<f64, Error> {
        self.peer.go(CHUNKS * EACH)?;
        let mut found = ping(&mut self.link, Waiting::Polling, CHUNKS, EACH)?;
        self.peer.done()?;
        Ok(median(&mut found))
    }
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::First);
    let mut found = Found::default();
    let daemon = Daemon::start(&bench.cores, "256MiB", &[])?;
    let start = |kind: &str, len: &str| bench.role(Core::Second, &["echo", kind, len, daemon.uri()]);
    let mut line = Pair { link: Line::new(bench.board.clone(), Side::A), peer: start("line", "64")? };
    for (len, name) in SIZES {
        let text = len.to_string();
        let mut peer = None;
        let link = BatonLink::first(daemon.uri(), len, || {
            peer = Some(start("baton", &text)?);
            Ok(())
        })?;
        let peer = peer.ok_or_else(|| Error::new("start the peer", "it was not asked to"))?;
        let mut ours = Pair { link, peer };
        let link = IoxLink::new(&bench.place, Side::A, len, Depth::PING, false)?;
        let mut theirs = Pair { link, peer: start("iox", &text)? };
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=bench.rounds() {
            let figures = (ours.round()?, theirs.round()?, line.round()?);
            if round > 0 {
                a.push(figures.0);
                b.push(figures.1);
                c.push(figures.2);
            }
        }
        let head = |what: &str| ("hand-over", format!("hand-over {name}, polling{what}"), "ns");
        found.rows.extend(Row::versus(head(""), &a, ("iceoryx2", &b), Target::Ratio(0.5)));
        if len == 64 {
            found.rows.extend(Row::versus(head(": floor"), &a, ("one cache line", &c), Target::None));
        }
    }
    Ok(found)
}

/// The role `echo KIND LEN URI`.
pub fn echo(board: &Board, place: &Place, words: &[&str]) -> Result<(), Error> {
    let &[kind, len, uri] = words else {
        return Err(Error::new("echo", "kind, length and daemon are missing"));
    };
    let len = len.parse().map_err(|error| Error::new("echo", error))?;
    match kind {
        "baton" => answer(BatonLink::second(uri, len)?),
        "iox" => answer(IoxLink::new(place, Side::B, len, Depth::PING, false)?),
        _ => answer(Line::new(board.clone(), Side::B)),
    }
}

fn answer(mut link: impl Link) -> Result<(), Error> {
    serve(|count| crate::link::echo(&mut link, Waiting::Polling, count).map(|()| 0.0))
}
