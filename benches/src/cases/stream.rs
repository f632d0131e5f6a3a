//! Throughput: as many 64 B messages as go through, from one process to another; and from one to four receivers.
//!
//! A never waits for answers, only for room in the queue (64 messages on both sides). The four receivers are four
//! endpoints of one process on the other core, since a machine with two cores has no more.

use baton_client::{Client, Inbox, SendFailure, Sender};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::ipc;

use crate::baton::{Daemon, connect, open};
use crate::cases::{Bench, Found};
use crate::error::{Error, step};
use crate::link::Patience;
use crate::machine::{Core, now};
use crate::report::{Row, Target};
use crate::rival::iox::{self, Depth, Place};
use crate::role::{Role, serve};
use crate::stats::median;

const LEN: usize = 64;
const CHUNKS: usize = 50;
const EACH: usize = 400;

/// Sends one message to every receiver, waiting for room.
type Send<'a> = Box<dyn FnMut() -> Result<(), Error> + 'a>;

fn depth(receivers: usize) -> Depth {
    Depth { subscribers: receivers, buffer: 64, overflow: false }
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::First);
    let mut found = Found::default();
    for (receivers, what) in [(1, "stream of 64 B, per message"), (4, "fan-out 1→4 of 64 B, per message")] {
        let daemon = Daemon::start(&bench.cores, "64MiB", &[])?;
        let mut ours = baton(bench, &daemon, receivers)?;
        let mut theirs = iceoryx(bench, receivers)?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for round in 0..=bench.rounds() {
            let figures = (pour(&mut ours)?, pour(&mut theirs)?);
            if round > 0 {
                a.push(figures.0);
                b.push(figures.1);
            }
        }
        let head = ("stream", what.to_owned(), "ns");
        found.rows.extend(Row::versus(head, &a, ("iceoryx2", &b), Target::None));
    }
    Ok(found)
}

/// One round: nanoseconds per message, the median stretch. A stretch that finds room fills it at once, one that does not
/// waits: long enough stretches see the pace of the slower side.
fn pour((send, peer): &mut (Send<'_>, Role)) -> Result<f64, Error> {
    peer.go(CHUNKS * EACH)?;
    let mut found = Vec::with_capacity(CHUNKS);
    for _ in 0..CHUNKS {
        let start = now();
        for _ in 0..EACH {
            send()?;
        }
        found.push((now() - start) as f64 / EACH as f64);
    }
    peer.done()?;
    Ok(median(&mut found))
}

fn baton<'a>(bench: &Bench, daemon: &Daemon, receivers: usize) -> Result<(Send<'a>, Role), Error> {
    let (client, inbox) = connect(daemon.uri(), "source")?;
    let count = receivers.to_string();
    let peer = bench.role(Core::Second, &["drain", "baton", &count, daemon.uri()])?;
    let senders: Result<Vec<Sender>, Error> =
        (0..receivers).map(|number| open(&client, &format!("drain{number}"))).collect();
    let senders = senders?;
    let send = move || {
        let _open = &inbox;
        let message = step("allocate", client.alloc(LEN))?.freeze();
        if let Some((last, others)) = senders.split_last() {
            for sender in others {
                put(sender, message.clone())?;
            }
            put(last, message)?;
        }
        Ok(())
    };
    Ok((Box::new(send), peer))
}

/// Sends, waiting for room.
fn put(sender: &Sender, message: baton_client::Block) -> Result<(), Error> {
    let mut patience = Patience::default();
    let mut message = message;
    loop {
        match sender.send(message) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.reason, SendFailure::Full) => message = error.block,
            Err(error) => return Err(Error::new("send", error)),
        }
        patience.look()?;
    }
}

fn iceoryx<'a>(bench: &Bench, receivers: usize) -> Result<(Send<'a>, Role), Error> {
    let node = bench.place.node()?;
    let service = format!("stream/{receivers}");
    let publisher: Publisher<ipc::Service, [u8], ()> =
        iox::patient_publisher(&node, &service, LEN, depth(receivers))?;
    let peer = bench.role(Core::Second, &["drain", "iox", &receivers.to_string(), &service])?;
    let send = move || {
        let _open = &node;
        step("send by iceoryx2", iox::loan(&publisher, LEN)?.send()).map(drop)
    };
    Ok((Box::new(send), peer))
}

/// The role `drain KIND RECEIVERS WHERE`.
pub fn drain(place: &Place, words: &[&str]) -> Result<(), Error> {
    let &[kind, receivers, at] = words else {
        return Err(Error::new("drain", "kind, count and place are missing"));
    };
    let receivers: usize = step("drain", receivers.parse())?;
    if kind == "baton" {
        let mut ends: Vec<(Client, Inbox)> =
            (0..receivers).map(|number| connect(at, &format!("drain{number}"))).collect::<Result<_, _>>()?;
        return all(receivers, |number| Ok(step("receive", ends[number].1.try_recv())?.is_some()));
    }
    let node = place.node()?;
    let ends: Vec<Subscriber<ipc::Service, [u8], ()>> =
        (0..receivers).map(|_| iox::subscriber(&node, at, depth(receivers))).collect::<Result<_, _>>()?;
    all(receivers, |number| Ok(step("receive by iceoryx2", ends[number].receive())?.is_some()))
}

/// Receives with each end in turn until every one has had its count.
fn all(receivers: usize, mut poll: impl FnMut(usize) -> Result<bool, Error>) -> Result<(), Error> {
    serve(|count| {
        let mut left = count * receivers;
        let mut patience = Patience::default();
        while left > 0 {
            let before = left;
            for number in 0..receivers {
                left -= usize::from(poll(number)?);
            }
            if left == before {
                patience.look()?;
            } else {
                patience = Patience::default();
            }
        }
        Ok(0.0)
    })
}
