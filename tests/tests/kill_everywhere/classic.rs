//! Classic clients: they speak the protocol over a socket and know nothing else of the pool than its name in /dev/shm.
//!
//! ```text
//!   forwarder (SDK) ──▶ classic un ◀──▶ classic ip            each way: a transfer, and a letter (see `letters`)
//!                            └──▶ consumer (SDK) ◀──┘         into its inbox: only what the client has made itself
//! ```
//! When the daemon is killed, so is the connection, and with it everything that was held: such a client ends, and says
//! [`LOST`]. The driver looks whether that is so, and takes it for killed. A client that would write on meanwhile would write
//! into what is somebody else's already; the protocol knows no help against that, so no daemon is killed while one writes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use baton_killpoint::step;
use baton_shm::{Access, Mapping, SharedSlice};
use baton_wire::classic::{Answer, Command, FromServer, NO_MEMORY, ServerDecoder, client_hello};

use crate::control::{
    CONSUMER, Control, DAEMON, DONE, DRAIN, DRAINED, EXAMINED, FAULTS, FIRST_CLASSIC, FIRST_MEMBER, INTENT,
    LEAVE, LIFE, PAUSE, PAUSED, PID, PULSE, PULSED, RECEIVED, ROLES, SENT, SERVED_BY, STOP, TO_LIFE, WRITING,
    advance, count,
};
use crate::letters::{Named, Way};
use crate::member::{Random, check_words, header, message, places, wanted, word};

/// Exit code of a client whose daemon is gone.
pub const LOST: i32 = 75;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// One reference to a block.
struct Held {
    node: i64,
    message: u64,
}

struct Worker {
    control: Control,
    slot: usize,
    life: u64,
    stream: Box<dyn Stream>,
    decoder: ServerDecoder,
    ctx: u64,
    memory: SharedSlice<AtomicU64>,
    held: Vec<Held>,
    random: Random,
    serial: u64,
    dull: bool,
}

/// The line of the daemon's log that says where it listens for TCP.
fn port(dir: &Path) -> Option<String> {
    let log = std::fs::read_to_string(dir.join("log")).ok()?;
    let line = log.lines().find(|line| line.contains("ready at") && line.contains("ip://"))?;
    Some(line.rsplit_once("ip://")?.1.trim().to_owned())
}

fn connect(slot: usize, dir: &Path) -> Option<Box<dyn Stream>> {
    if slot == FIRST_CLASSIC {
        return Some(Box::new(UnixStream::connect(dir.join("rmmt.sock")).ok()?));
    }
    let stream = TcpStream::connect(port(dir)?).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(Box::new(stream))
}

/// Runs a client until it is told to stop, or its daemon is gone.
pub fn play(control: Control, slot: usize, dir: &Path, seed: u64, watchdog: Duration) {
    let end = Instant::now() + watchdog;
    let life = control.slot(slot, LIFE).load(SeqCst);
    loop {
        assert!(Instant::now() < end, "no daemon greets a classic client");
        let daemon = control.slot(DAEMON, PID).load(SeqCst);
        let Some(mut stream) = connect(slot, dir) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mut decoder = ServerDecoder::default();
        let hello = stream.write_all(&client_hello(std::process::id().cast_signed())).is_ok();
        let Some(FromServer::Hello(hello)) = hello.then(|| read(&mut *stream, &mut decoder)).flatten() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        if control.slot(DAEMON, PID).load(SeqCst) != daemon {
            continue; // which of the two it was is not known: once more
        }
        let path = format!("/dev/shm{}", hello.name);
        let file = std::fs::File::options().read(true).write(true).open(path).expect("the pool's name");
        let len = hello.kib as usize * 1024;
        let mapping = Mapping::new(&file, len, Access::ReadWrite).expect("the pool");
        let memory = Arc::new(mapping).slice(0, len / 8).expect("within");
        control.slot(slot, SERVED_BY).store(daemon, SeqCst);
        control.slot(slot, PID).store(std::process::id().into(), SeqCst);
        let random = Random(seed | 1);
        let worker = Worker {
            control,
            slot,
            life,
            stream,
            decoder,
            ctx: 0,
            memory,
            held: Vec::new(),
            random,
            serial: 0,
            dull: true,
        };
        return worker.run();
    }
}

/// The next message; `None` at the end of the stream.
fn read(stream: &mut dyn Stream, decoder: &mut ServerDecoder) -> Option<FromServer> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(message) = decoder.next().expect("the daemon speaks the protocol") {
            return Some(message);
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => decoder.push(&chunk[..count]),
        }
    }
}

impl Worker {
    fn run(mut self) {
        let mut seen = 0;
        loop {
            let pause = self.control.head(PAUSE).load(SeqCst);
            if pause != 0 && pause != seen {
                seen = pause;
                self.stand_still(pause);
            }
            let told = self.control.slot(self.slot, LEAVE).load(SeqCst) != 0;
            if told || self.control.head(STOP).load(SeqCst) != 0 {
                return; // the connection is closed, and the daemon frees what is held
            }
            self.step();
        }
    }

    fn fault(&self, what: &str) {
        eprintln!("FAULT {} life {}: {what}", ROLES[self.slot], self.life);
        self.control.head(FAULTS).fetch_add(1, SeqCst);
    }

    fn roundtrip(&mut self, bytes: &[u8]) -> Answer {
        let lost = || -> ! { std::process::exit(LOST) };
        if self.stream.write_all(bytes).is_err() {
            lost();
        }
        step!(ClassicAsked);
        match read(&mut *self.stream, &mut self.decoder) {
            Some(FromServer::Answer(answer)) if answer.ctx == self.ctx => {
                step!(ClassicAnswered);
                answer
            }
            None => lost(),
            other => panic!("{other:?} to command {}", self.ctx),
        }
    }

    /// The number in the answer, 0 if it has none; or the sentence.
    fn ask(&mut self, command: &Command) -> Result<i64, String> {
        self.ctx += 1;
        let mut bytes = Vec::new();
        command.encode(self.ctx, &mut bytes).expect("short");
        let answer = self.roundtrip(&bytes);
        match answer.sentence() {
            Some(sentence) => Err(sentence),
            None => Ok(answer.as_number().unwrap_or(0)),
        }
    }

    /// A command that there is not: the daemon's answer says that it is still the one that knows us.
    fn pulse(&mut self) {
        self.ctx += 1;
        let bytes = [&12i32.to_le_bytes()[..], &self.ctx.to_le_bytes(), &3i32.to_le_bytes()].concat();
        let answer = self.roundtrip(&bytes);
        if answer.status != 1001 {
            self.fault(&format!("command 3 is answered with {answer:?}"));
        }
    }

    fn stand_still(&mut self, pause: u64) {
        EXAMINED.store(true, SeqCst);
        let control = self.control.clone();
        let say = |word| control.slot(self.slot, word).store(pause, SeqCst);
        let until = |word| {
            while control.head(word).load(SeqCst) != pause {
                if control.head(PAUSE).load(SeqCst) != pause {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            true
        };
        say(PAUSED);
        if until(DRAIN) {
            while self.receive() {}
            self.pulse();
            let mut nodes: Vec<u32> = self.held.iter().map(|held| held.node as u32).collect();
            nodes.sort_unstable();
            nodes.dedup();
            control.believe(self.slot, &nodes);
            control.slot(self.slot, DRAINED).store(pause, SeqCst);
            if until(PULSE) {
                self.pulse();
                control.slot(self.slot, PULSED).store(pause, SeqCst);
            }
            while control.head(PAUSE).load(SeqCst) == pause {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        EXAMINED.store(false, SeqCst);
    }

    fn step(&mut self) {
        self.dull = true;
        if self.receive() {
            self.dull = false;
        }
        if self.random.below(2) == 0 && self.held.len() < 8 {
            self.make();
        }
        match self.random.below(4) {
            0 => self.pass_to_consumer(),
            1 => self.pass_to_the_other(),
            _ => {}
        }
        while self.held.len() > 6 || (!self.held.is_empty() && self.random.below(6) == 0) {
            let at = self.random.below(self.held.len() as u64) as usize;
            self.free(at);
        }
        if self.dull {
            std::thread::sleep(Duration::from_micros(100 + self.random.below(400)));
        }
    }

    fn check(&self, node: i64) -> Option<u64> {
        let first = usize::try_from(node).ok()? / 8;
        let at = |i: usize| self.memory.get(first + i).map(|word| word.load(Relaxed));
        check_words(at(3)? as usize, at)
    }

    fn make(&mut self) {
        let len = wanted(&self.control, &mut self.random);
        match self.ask(&Command::Alloc { size: len as u32, align: 64 }) {
            Ok(node) => {
                self.dull = false;
                self.serial += 1;
                let header = header(self.slot, self.life, self.serial, len);
                let may_write = self.control.begin_writing(self.slot);
                for i in places(len).filter(|_| may_write) {
                    self.memory[node as usize / 8 + i].store(word(&header, i), Relaxed);
                }
                self.control.slot(self.slot, WRITING).store(0, SeqCst);
                if !may_write {
                    // Nothing of ours is in it: not to be sent.
                    return self
                        .ask(&Command::Free { node })
                        .map_or_else(|sentence| self.fault(&sentence), drop);
                }
                self.held.push(Held { node, message: message(&header) });
            }
            Err(sentence) if sentence == NO_MEMORY => {}
            Err(sentence) => self.fault(&sentence),
        }
    }

    fn free(&mut self, at: usize) {
        let Held { node, message } = self.held.swap_remove(at);
        if self.check(node) != Some(message) {
            self.pulse(); // or the block is not ours any more, with the connection
            self.fault(&format!("the block at {node} changed while it was held"));
        }
        if let Err(sentence) = self.ask(&Command::Free { node }) {
            self.fault(&sentence);
        }
    }

    /// Every letter that waits; whether there was one.
    fn receive(&mut self) -> bool {
        let control = self.control.clone();
        let mut any = false;
        for (from, sender) in ROLES.iter().enumerate().skip(FIRST_MEMBER) {
            let way = Way { control: &control, from, to: self.slot };
            while let Some(letter) = way.next(self.life) {
                any = true;
                let count = letter.nodes.len() as u32;
                let recv = Command::Recv { bid: letter.bid, count, from_pid: letter.from_pid };
                if let Err(sentence) = self.ask(&recv) {
                    self.fault(&sentence);
                }
                let found: Vec<_> = letter.nodes.iter().map(|node| self.check(*node)).collect();
                let messages: Vec<u64> = found.iter().flatten().copied().collect();
                if messages.len() != letter.nodes.len() {
                    self.pulse();
                    self.fault(&format!("{:?} from {} are not as they were written", letter.nodes, sender));
                }
                let held = letter.nodes.iter().zip(&messages);
                self.held.extend(held.map(|(node, message)| Held { node: *node, message: *message }));
                way.taken(&messages);
                control.slot(self.slot, RECEIVED).fetch_add(1, SeqCst);
            }
        }
        any
    }

    /// One or two references to the other classic client: handed over, or shared.
    fn pass_to_the_other(&mut self) {
        let control = self.control.clone();
        let to = if self.slot == FIRST_CLASSIC { FIRST_CLASSIC + 1 } else { FIRST_CLASSIC };
        let way = Way { control: &control, from: self.slot, to };
        let count = (1 + self.random.below(2) as usize).min(self.held.len());
        let Some((life, pid)) = control.who(to).filter(|_| count > 0 && way.has_room()) else { return };
        let first = self.held.len() - count;
        let nodes: Vec<i64> = self.held[first..].iter().map(|held| held.node).collect();
        let messages: Vec<u64> = self.held[first..].iter().map(|held| held.message).collect();
        let numbers: Vec<u64> = nodes.iter().map(|node| node.cast_unsigned()).collect();
        let state = way.begin(life, Named::Nodes, &numbers, &messages);
        match self.ask(&Command::PreSend { nodes: nodes.clone(), to_pid: pid.cast_signed() }) {
            Ok(bid) => {
                self.dull = false;
                way.post(life, &nodes, bid, state);
                control.slot(self.slot, SENT).fetch_add(1, SeqCst);
                if self.random.below(2) == 0 {
                    (first..self.held.len()).rev().for_each(|at| self.free(at));
                }
            }
            Err(sentence) => {
                way.give_up();
                self.refused(&sentence);
            }
        }
    }

    /// A block of our own making into the consumer's inbox.
    fn pass_to_consumer(&mut self) {
        let control = self.control.clone();
        let own = |held: &Held| (held.message >> 56) as usize == self.slot;
        let (Some(at), Some((life, pid))) = (self.held.iter().position(own), control.who(CONSUMER)) else {
            return;
        };
        let Held { node, message } = self.held[at];
        let slot = self.slot;
        let cell = |word| control.pair(slot, CONSUMER, word);
        if cell(TO_LIFE).load(SeqCst) != life {
            cell(TO_LIFE).store(0, SeqCst);
            [DONE, INTENT].into_iter().for_each(|word| cell(word).store(0, SeqCst));
            cell(TO_LIFE).store(life, SeqCst);
        }
        let before = cell(DONE).load(SeqCst);
        let after = advance(before, message);
        control.note(self.slot, CONSUMER, 0, count(after), message);
        cell(INTENT).store(after, SeqCst);
        match self.ask(&Command::PreSend { nodes: vec![node], to_pid: pid.cast_signed() }) {
            Ok(_) => {
                self.dull = false;
                cell(DONE).store(after, SeqCst);
                control.slot(self.slot, SENT).fetch_add(1, SeqCst);
                if self.random.below(2) == 0 {
                    self.free(at);
                }
            }
            Err(sentence) => {
                cell(INTENT).store(before, SeqCst);
                self.refused(&sentence);
            }
        }
    }

    /// A transfer may be refused because the receiver is gone or cannot take it; never because we do not hold the blocks.
    fn refused(&self, sentence: &str) {
        if sentence.contains("holds no block") {
            self.fault(sentence);
        }
    }
}
