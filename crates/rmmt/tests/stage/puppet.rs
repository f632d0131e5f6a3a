//! A member that takes orders: one line each, one line of answer.

use std::io::BufRead;
use std::time::Duration;

use baton_client::{Block, Client, ConnectOptions, Delivery, Inbox, OpenError, SendError, Sender};

struct Member {
    client: Client,
    inbox: Inbox,
    held: Vec<Block>,
    senders: Vec<Sender>,
}

pub fn play(uri: &str, options: &str) {
    let mut words = options.split_whitespace();
    let mut connect = ConnectOptions::new(words.next().unwrap()).timeout(super::WATCHDOG);
    for word in words {
        connect = if word == "read-only" { connect.read_only() } else { connect.inbox(word) };
    }
    let (client, inbox) = Client::connect(uri, connect).unwrap();
    let mut member = Member { client, inbox, held: Vec::new(), senders: Vec::new() };
    println!("@@ attached");
    for order in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<_> = order.split_whitespace().collect();
        println!("@@ {}", member.obey(&words));
    }
}

impl Member {
    fn obey(&mut self, words: &[&str]) -> String {
        match *words {
            ["hold", count, len] => self.hold(count.parse().unwrap(), len.parse().unwrap()),
            ["send", inbox] => self.with_sender(inbox, |sender, block| sender.send(block).map(|()| 0)),
            ["newest", inbox] => {
                self.with_sender(inbox, |sender, block| sender.send_newest(block).map(|s| s.replaced))
            }
            ["share", inbox] => {
                let Some(block) = self.held.last().cloned() else { return "holds nothing".into() };
                self.held.push(block);
                self.with_sender(inbox, |sender, block| sender.send(block).map(|()| 0))
            }
            ["recv"] => match self.inbox.recv(Some(super::WATCHDOG)) {
                Ok(Some(delivery)) => self.take(delivery),
                Ok(None) => "nothing".into(),
                Err(error) => error.to_string(),
            },
            ["transfer", pid] => {
                let held = std::mem::take(&mut self.held);
                match self.client.send_to_pid(pid.parse().unwrap(), held) {
                    Ok(transfer) => transfer.bid.to_string(),
                    Err(error) => {
                        let text = error.to_string();
                        self.held = error.blocks;
                        text
                    }
                }
            }
            ["drop"] => {
                self.held.clear();
                "dropped".into()
            }
            ["payload mapping" | "mapping"] => mapping(),
            ["alloc", len] => match self.client.alloc(len.parse().unwrap()) {
                Ok(_) => "allocated".into(),
                Err(error) => error.to_string(),
            },
            ["audit"] => self.client.audit().unwrap().ok.to_string(),
            // For ever: allocate, fill, send; what comes is checked and counted. Ends with the count of errors.
            ["work", inbox, rounds] => self.work(inbox, rounds.parse().unwrap()),
            _ => format!("what is {words:?}?"),
        }
    }

    fn hold(&mut self, count: usize, len: usize) -> String {
        let mut ids = Vec::new();
        for _ in 0..count {
            match self.client.alloc(len) {
                Ok(mut block) => {
                    let seed = block.id().get() as u8;
                    fill(&mut block, seed);
                    ids.push(block.id().to_string());
                    self.held.push(block.freeze());
                }
                Err(error) => return error.to_string(),
            }
        }
        ids.join(" ")
    }

    fn with_sender(
        &mut self,
        inbox: &str,
        send: impl FnOnce(&Sender, Block) -> Result<u32, SendError>,
    ) -> String {
        let Some(block) = self.held.pop() else { return "holds nothing".into() };
        if !self.senders.iter().any(|sender| sender.name() == inbox) {
            match self.client.sender(inbox) {
                Ok(sender) => self.senders.push(sender),
                Err(error) => {
                    self.held.push(block);
                    return error.to_string();
                }
            }
        }
        let sender = self.senders.iter().find(|sender| sender.name() == inbox).unwrap();
        match send(sender, block) {
            Ok(replaced) => format!("sent {replaced}"),
            Err(error) => {
                self.senders.retain(|sender| sender.name() != inbox);
                let text = format!("{:?}", error.reason);
                self.held.push(error.block);
                text
            }
        }
    }

    fn take(&mut self, Delivery { block, from }: Delivery) -> String {
        let good = is_filled(&block);
        let text = format!(
            "block {} len {} from {from} {}",
            block.id(),
            block.len(),
            if good { "good" } else { "BAD" }
        );
        self.held.push(block);
        text
    }

    /// `rounds` frames to `inbox`, receiving whatever comes meanwhile. Answers with what went wrong.
    fn work(&mut self, inbox: &str, rounds: u32) -> String {
        let (mut errors, mut received) = (Vec::new(), 0u32);
        let mut sender = self.client.sender(inbox).unwrap();
        for _ in 0..rounds {
            match self.client.alloc(30_000) {
                Ok(mut block) => {
                    let seed = block.id().get() as u8;
                    fill(&mut block, seed);
                    match sender.send_newest(block.freeze()) {
                        Ok(_) => {}
                        Err(error) if error.reason == baton_client::SendFailure::Full => {}
                        Err(error) => errors.push(error.to_string()),
                    }
                }
                Err(error) => errors.push(error.to_string()),
            }
            match self.inbox.recv(Some(Duration::from_micros(200))) {
                Ok(Some(delivery)) if is_filled(&delivery.block) => received += 1,
                Ok(Some(_)) => errors.push("BAD contents".into()),
                Ok(None) => {}
                Err(error) => errors.push(error.to_string()),
            }
            match self.client.sender(inbox) {
                Ok(again) => sender = again,
                Err(OpenError::Disconnected { .. }) => {} // allowed: the daemon is away, the old way works
                Err(error) => errors.push(error.to_string()),
            }
        }
        errors.dedup();
        format!("{errors:?} received some: {}", received > 0)
    }
}

/// A pattern that another block's contents do not have.
fn fill(bytes: &mut [u8], seed: u8) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = seed.wrapping_add((i % 251) as u8);
    }
}

fn is_filled(block: &Block) -> bool {
    let seed = block.id().get() as u8;
    block.iter().enumerate().all(|(i, byte)| *byte == seed.wrapping_add((i % 251) as u8))
}

/// Permissions of the payload's mapping, from the kernel.
fn mapping() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("baton-payload") || line.contains("/dev/shm/baton-test"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// Receives one block as a reader, prints the writable mappings of the payload, and then writes to the block.
#[allow(unsafe_code)]
pub fn stray_write(uri: &str) {
    let options = ConnectOptions::new("stray").inbox("stray.in").read_only();
    let (client, mut inbox) = Client::connect(uri, options).unwrap();
    let block = inbox.recv(None).unwrap().unwrap().block;
    assert!(matches!(client.alloc(64), Err(baton_client::AllocError::ReadOnly)));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines().filter(|line| line.contains("baton-payload")) {
        println!("payload {line}");
    }
    let first = block.as_ptr().cast_mut();
    println!("about to write over {}", block[0]);
    // SAFETY: none; the page is mapped read-only, so this store is the fault that the test is about.
    unsafe { first.write_volatile(1) };
    println!("written");
}
