//! Does it stay fast when there is much of it? Two plots: cost over the number of attached processes, and over the number
//! of 64 B blocks that are held.
//!
//! The processes are attached and idle but for two, one per core, which do the work: what grows with their number is what
//! the pool keeps for them. The blocks are held by one of the two and stay held: what grows is what an allocation looks
//! through. Every point is the median over a few rounds. In each round one bare cache line goes to and fro as well: where
//! that becomes slower, the host has moved the cores, and the pool has nothing to do with it.

use std::hint::black_box;

use baton_client::{BlockMut, Client};

use crate::baton::{BatonLink, Daemon, connect};
use crate::cases::{Bench, Found};
use crate::error::{Error, step};
use crate::link::{Link, Waiting, ping};
use crate::machine::{Core, now};
use crate::report::{Row, Series, Target};
use crate::rival::floor::{Line, Side};
use crate::role::{Role, serve};
use crate::stats::median;

const LEN: usize = 64;
const ROUNDS: usize = 7;
const CHUNKS: usize = 40;
const EACH: usize = 100;

/// How many children start at once.
const AT_ONCE: usize = 32;

/// What does the work: two processes, one per core.
struct Workers {
    link: BatonLink,
    peer: Role,
    line: Line,
    line_peer: Role,
}

/// Nanoseconds of alloc + free, of a hand-over one way, and of a cache line one way.
type Point = [f64; 3];

/// Their names.
const CURVES: [&str; 3] = ["alloc + free", "hand-over", "one cache line"];

impl Workers {
    fn start(bench: &Bench, daemon: &Daemon) -> Result<Self, Error> {
        bench.cores.pin(Core::First);
        let mut peer = None;
        let link = BatonLink::first(daemon.uri(), LEN, || {
            peer = Some(bench.role(Core::Second, &["echo", "baton", &LEN.to_string(), daemon.uri()])?);
            Ok(())
        })?;
        let peer = peer.ok_or_else(|| Error::new("start the peer", "it was not asked to"))?;
        let line = Line::new(bench.board.clone(), Side::A);
        let line_peer = bench.role(Core::Second, &["echo", "line", &LEN.to_string(), daemon.uri()])?;
        Ok(Self { link, peer, line, line_peer })
    }

    fn point(&mut self) -> Result<Point, Error> {
        let mut found: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let round = [
                alloc_free(self.link.client())?,
                to_and_fro(&mut self.link, &mut self.peer)?,
                to_and_fro(&mut self.line, &mut self.line_peer)?,
            ];
            found.iter_mut().zip(round).for_each(|(list, figure)| list.push(figure));
        }
        Ok(found.map(|mut list| median(&mut list)))
    }
}

fn to_and_fro(link: &mut impl Link, peer: &mut Role) -> Result<f64, Error> {
    peer.go(CHUNKS * EACH)?;
    let mut found = ping(link, Waiting::Polling, CHUNKS, EACH)?;
    peer.done()?;
    Ok(median(&mut found))
}

/// 256 blocks at once and all of them back, so that the private stock of spare ones does not hide the pool.
fn alloc_free(client: &Client) -> Result<f64, Error> {
    let mut found = Vec::new();
    for _ in 0..CHUNKS {
        let start = now();
        let blocks: Result<Vec<BlockMut>, _> = (0..256).map(|_| client.alloc(LEN)).collect();
        drop(black_box(step("allocate", blocks)?));
        found.push((now() - start) as f64 / 256.0);
    }
    Ok(median(&mut found))
}

/// Collects the points of one plot.
struct Curve {
    axis: &'static str,
    points: [Vec<(f64, f64)>; 3],
}

impl Curve {
    fn new(axis: &'static str) -> Self {
        Self { axis, points: Default::default() }
    }

    fn add(&mut self, x: usize, point: Point) {
        self.points.iter_mut().zip(point).for_each(|(curve, figure)| curve.push((x as f64, figure)));
    }

    fn into_found(self, note: &str) -> Found {
        let mut found = Found::default();
        for (what, points) in CURVES.into_iter().zip(self.points) {
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let what = format!("{what} with {} {}, against {}", last.0, self.axis, first.0);
                let head = ("scaling", what, "ns");
                let row = Row::versus(head, &[last.1], ("the fewest", &[first.1]), Target::None);
                found.rows.extend(row.map(|row| row.note(note)));
            }
            found.series.push(Series { case: "scaling", what: what.to_owned(), axis: self.axis, points });
        }
        found
    }
}

/// Over the number of attached processes.
pub fn processes(bench: &Bench) -> Result<Found, Error> {
    let daemon = Daemon::start(&bench.cores, "16MiB", &["--members-max", "1100"])?;
    let mut workers = Workers::start(bench, &daemon)?;
    let steps: &[usize] = if bench.quick { &[2, 16, 64] } else { &[2, 8, 32, 128, 512, 1024] };
    let mut idle = Vec::new();
    let mut curve = Curve::new("processes");
    for &count in steps {
        while idle.len() + 2 < count {
            let batch = AT_ONCE.min(count - 2 - idle.len());
            let run = std::process::id().to_string();
            let spawn = |_| Role::spawn(&bench.board, &bench.cores, &["idle", "any", &run, daemon.uri()]);
            let mut started = (0..batch).map(spawn).collect::<Result<Vec<Role>, Error>>()?;
            started.iter_mut().try_for_each(|role| role.expect("ready").map(drop))?;
            idle.extend(started);
        }
        curve.add(count, workers.point()?);
    }
    Ok(curve.into_found("all attached, two of them at work"))
}

/// The role `idle URI`: attached, and that is all.
pub fn idle(words: &[&str]) -> Result<(), Error> {
    let &[uri] = words else { return Err(Error::new("attach", "the daemon is missing")) };
    let options = baton_client::ConnectOptions::new("idle").timeout(crate::link::PATIENCE);
    let _attached = step("attach", Client::connect(uri, options))?;
    serve(|_| Ok(0.0))
}

/// Over the number of blocks that are held.
pub fn blocks(bench: &Bench) -> Result<Found, Error> {
    let size = if bench.quick { "256MiB" } else { "1GiB" };
    let more = ["--max-block", "2MiB", "--min-blocks", if bench.quick { "1000000" } else { "4400000" }];
    let daemon = Daemon::start(&bench.cores, size, &more)?;
    let mut workers = Workers::start(bench, &daemon)?;
    let (holder, _inbox) = connect(daemon.uri(), "holder")?;
    let steps: &[usize] = if bench.quick {
        &[1 << 10, 1 << 14, 1 << 17]
    } else {
        &[1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22]
    };
    let mut held = Vec::new();
    let mut curve = Curve::new("blocks held");
    let mut note = "64 B blocks".to_owned();
    for &count in steps {
        while held.len() < count {
            match holder.alloc(LEN) {
                Ok(block) => held.push(block),
                Err(error) => {
                    note = format!("64 B blocks; a pool of {size} had room for {}: {error}", held.len());
                    break;
                }
            }
        }
        if held.len() < count {
            held.truncate(held.len().saturating_sub(4096)); // room to work in
            curve.add(held.len(), workers.point()?);
            break;
        }
        curve.add(count, workers.point()?);
    }
    Ok(curve.into_found(&note))
}
