//! Memory that must be set aside for N cameras with M readers each, 3.1 MB frames.
//!
//! iceoryx2 reserves per publisher what its own readers could hold in the worst case; what one camera does not use no
//! other camera can have. Measured by creating the services with its default depths (two frames queued and two borrowed
//! per reader) and adding up the files in /dev/shm.
//!
//! In one pool a frame that several readers hold exists once, and a block that one camera does not need is another's.
//! The pool has to hold, at the worst instant of the same work (queues that keep the newest two frames, readers that work
//! on two frames at once): per camera one frame being written and two queued, per reader two in work. That this is enough
//! is tried: a pool of that size carries the work, every reader holding two old frames all the time, and no allocation
//! may fail.

use std::collections::VecDeque;

use baton_client::{Block, Client, Inbox, Sender};

use crate::baton::{Daemon, connect, open};
use crate::board::FRAME;
use crate::cases::{Bench, Found};
use crate::error::{Error, step};
use crate::machine::Core;
use crate::report::{Row, Target};
use crate::rival::iox::{self, Depth};

const CAMERAS: usize = 8;
const READERS: usize = 4;
const QUEUED: usize = 2;
const IN_WORK: usize = 2;

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::Any);
    let theirs = iceoryx(bench)?;
    let blocks = CAMERAS * (1 + QUEUED) + READERS * IN_WORK;
    let (ours, frames) = carry(bench, blocks)?;
    let what = format!("memory for {CAMERAS} cameras × {READERS} readers, 3.1 MB");
    let row = Row::versus(("memory", what, "B"), &[ours], ("iceoryx2", &[theirs]), Target::Ratio(0.4));
    let note = format!(
        "iceoryx2: all files of its services; Baton: payload and metadata of a pool of {blocks} frames, which carried \
         {frames} frames with every reader holding {IN_WORK} of them and {QUEUED} of each camera queued"
    );
    Ok(Found { rows: row.map(|row| row.note(note)).into_iter().collect(), ..Found::default() })
}

/// Bytes of its shared memory files.
fn iceoryx(bench: &Bench) -> Result<f64, Error> {
    let node = bench.place.node()?;
    let before = bench.place.shared_bytes();
    let depth = Depth { subscribers: READERS, buffer: QUEUED, overflow: true };
    let mut ports = Vec::new();
    for camera in 0..CAMERAS {
        let service = format!("camera/{camera}");
        let publisher = iox::publisher(&node, &service, FRAME, depth)?;
        let readers: Result<Vec<_>, Error> =
            (0..READERS).map(|_| iox::subscriber(&node, &service, depth)).collect();
        ports.push((publisher, readers?));
    }
    Ok((bench.place.shared_bytes() - before) as f64)
}

/// A reader: one inbox for all cameras.
struct Reader {
    _client: Client,
    inbox: Inbox,
    in_work: VecDeque<Block>,
}

/// Runs the work in a pool for `blocks` frames; its bytes, and how many frames it carried.
fn carry(bench: &Bench, blocks: usize) -> Result<(f64, usize), Error> {
    // The block of the class is a little larger than the frame; extents hold whole blocks.
    let block = 3_670_016.max(FRAME);
    let mut size = blocks * block;
    // An inbox has room for two frames of each camera, and a camera replaces its own oldest.
    let more = ["--max-block", "4MiB", "--members-max", "32", "--inbox-len", "16"];
    loop {
        let daemon = Daemon::start(&bench.cores, &size.to_string(), &more)?;
        match work(&daemon) {
            Ok(frames) => {
                let info = step("ask for the pool", daemon.observer()?.pool())?;
                let usable = info.bytes_total as f64;
                return Ok((usable + metadata_of(&daemon)?, frames));
            }
            // The division into extents may leave fewer blocks than the bytes would hold: give it more, and count it.
            Err(_) if size < 2 * blocks * block => size += 2 * block,
            Err(error) => return Err(error),
        }
    }
}

/// The mapped size of the daemon's metadata.
fn metadata_of(daemon: &Daemon) -> Result<f64, Error> {
    let maps = step("look at the daemon", std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())))?;
    let metadata = maps.lines().filter(|line| line.contains("memfd:") && line.contains("meta"));
    let size = |line: &str| -> Option<f64> {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let parse = |text| u64::from_str_radix(text, 16).ok();
        Some((parse(to)? - parse(from)?) as f64)
    };
    Ok(metadata.filter_map(size).fold(0.0, f64::max))
}

fn work(daemon: &Daemon) -> Result<usize, Error> {
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let (client, inbox) = connect(daemon.uri(), &format!("reader{reader}"))?;
        readers.push(Reader { _client: client, inbox, in_work: VecDeque::new() });
    }
    let mut cameras: Vec<(Client, Inbox, Vec<Sender>)> = Vec::new();
    for camera in 0..CAMERAS {
        let (client, inbox) = connect(daemon.uri(), &format!("camera{camera}"))?;
        let senders: Result<Vec<Sender>, Error> =
            (0..READERS).map(|reader| open(&client, &format!("reader{reader}"))).collect();
        cameras.push((client, inbox, senders?));
    }
    // All cameras write at once while every queue is full. The readers take turns: one looks, keeps the newest frame in
    // work beside its last one, and lets the rest go, so that what they hold differs.
    let rounds = 64;
    for round in 0..rounds {
        let written: Result<Vec<Block>, Error> = cameras
            .iter()
            .map(|(client, ..)| step("allocate", client.alloc(FRAME)).map(|frame| frame.freeze()))
            .collect();
        for (frame, (_, _, senders)) in written?.into_iter().zip(&cameras) {
            for sender in senders {
                step("send", sender.send_newest(frame.clone()))?;
            }
        }
        let reader = &mut readers[round % READERS];
        let mut newest = None;
        while let Some(delivery) = step("receive", reader.inbox.try_recv())? {
            newest = Some(delivery.block);
        }
        reader.in_work.extend(newest);
        while reader.in_work.len() > IN_WORK {
            reader.in_work.pop_front();
        }
    }
    Ok(rounds * CAMERAS)
}
