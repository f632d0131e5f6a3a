//! iceoryx2, used as its own examples and benchmarks do: publish-subscribe over slices, loaned uninitialised; an event
//! service beside it where receivers sleep.
//!
//! Its files get a directory and a prefix of this run alone, and are removed at the end.

// One function of its interface is unsafe: "this loan is initialised". See `loan`.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample_mut::SampleMut;

use crate::error::{Error, step};
use crate::link::Link;
use crate::rival::floor::Side;

type Ipc = ipc::Service;

/// Where this run's files are.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    prefix: String,
}

impl Place {
    /// For the process that measures, `run` its id; children name the same.
    pub fn of(run: u32) -> Self {
        let dir = std::env::temp_dir().join(format!("baton-bench-{run}"));
        Self { dir, prefix: format!("bb{run}_") }
    }

    /// A node in this place.
    pub fn node(&self) -> Result<Node<Ipc>, Error> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let dir = self.dir.to_string_lossy();
        let path = iceoryx2::prelude::Path::new(dir.as_bytes());
        config.global.set_root_path(&step("name a directory for iceoryx2", path)?);
        config.global.prefix = step("name files of iceoryx2", FileName::new(self.prefix.as_bytes()))?;
        step("create a node of iceoryx2", NodeBuilder::new().config(&config).create::<Ipc>())
    }

    /// Bytes that all shared memory files of this run reserve.
    pub fn shared_bytes(&self) -> u64 {
        self.files().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let prefix = self.prefix.clone();
        let all = std::fs::read_dir(Path::new("/dev/shm")).into_iter().flatten().flatten();
        all.map(|entry| entry.path()).filter(move |path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
    }

    /// Removes what runs left behind that were killed: iceoryx2's files outlive their processes.
    pub fn clean_dead() {
        let all = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        for file in all {
            let name = file.file_name().to_string_lossy().into_owned();
            let run = name.strip_prefix("bb").and_then(|rest| rest.split_once('_'));
            if let Some(run) = run.and_then(|(run, _)| run.parse().ok())
                && !Path::new(&format!("/proc/{run}")).exists()
            {
                Self::of(run).clean();
            }
        }
    }

    /// Removes what is left.
    pub fn clean(&self) {
        for path in self.files() {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// How much may be under way, per service.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Subscribers per service.
    pub subscribers: usize,
    /// Messages that wait per subscriber.
    pub buffer: usize,
    /// A full queue loses its oldest message (else the publisher is told).
    pub overflow: bool,
}

impl Depth {
    /// As its own latency benchmark.
    pub const PING: Self = Self { subscribers: 1, buffer: 1, overflow: true };
}

fn name(text: &str) -> Result<ServiceName, Error> {
    step("name a service of iceoryx2", ServiceName::new(text))
}

/// The publishing end of a service.
pub fn publisher(
    node: &Node<Ipc>,
    service: &str,
    len: usize,
    depth: Depth,
) -> Result<Publisher<Ipc, [u8], ()>, Error> {
    publisher_that(BackpressureStrategy::DiscardData, node, service, len, depth)
}

/// A publisher that waits for room when a queue is full.
pub fn patient_publisher(
    node: &Node<Ipc>,
    service: &str,
    len: usize,
    depth: Depth,
) -> Result<Publisher<Ipc, [u8], ()>, Error> {
    publisher_that(BackpressureStrategy::RetryUntilDelivered, node, service, len, depth)
}

fn publisher_that(
    strategy: BackpressureStrategy,
    node: &Node<Ipc>,
    service: &str,
    len: usize,
    depth: Depth,
) -> Result<Publisher<Ipc, [u8], ()>, Error> {
    let service = open(node, service, depth)?;
    let builder = service.publisher_builder().initial_max_slice_len(len);
    step("create a publisher", builder.backpressure_strategy(strategy).create())
}

/// The subscribing end of a service.
pub fn subscriber(node: &Node<Ipc>, service: &str, depth: Depth) -> Result<Subscriber<Ipc, [u8], ()>, Error> {
    step("create a subscriber", open(node, service, depth)?.subscriber_builder().create())
}

fn open(
    node: &Node<Ipc>,
    service: &str,
    depth: Depth,
) -> Result<iceoryx2::service::port_factory::publish_subscribe::PortFactory<Ipc, [u8], ()>, Error> {
    let builder = node.service_builder(&name(service)?).publish_subscribe::<[u8]>();
    let builder = builder.max_publishers(1).max_subscribers(depth.subscribers).history_size(0);
    let builder = builder.subscriber_max_buffer_size(depth.buffer).enable_safe_overflow(depth.overflow);
    step("open a service of iceoryx2", builder.open_or_create())
}

/// The end of an event service that wakes.
pub fn notifier(node: &Node<Ipc>, service: &str) -> Result<Notifier<Ipc>, Error> {
    let service =
        step("open an event of iceoryx2", node.service_builder(&name(service)?).event().open_or_create())?;
    step("create a notifier", service.notifier_builder().create())
}

/// The end of an event service that sleeps.
pub fn listener(node: &Node<Ipc>, service: &str) -> Result<Listener<Ipc>, Error> {
    let service =
        step("open an event of iceoryx2", node.service_builder(&name(service)?).event().open_or_create())?;
    step("create a listener", service.listener_builder().create())
}

/// A loan of `len` bytes whose bytes are left alone, like a block of Baton's pool.
#[inline]
pub fn loan(publisher: &Publisher<Ipc, [u8], ()>, len: usize) -> Result<SampleMut<Ipc, [u8], ()>, Error> {
    let sample = step("loan from iceoryx2", publisher.loan_slice_uninit(len))?;
    // SAFETY: the sample is `len` bytes of a shared memory segment, which the kernel hands out as zeroes: bytes that are
    // initialised, whatever was written to them since; and every bit pattern is a u8.
    Ok(unsafe { sample.assume_init() })
}

/// Two ends.
#[derive(Debug)]
pub struct IoxLink {
    publisher: Publisher<Ipc, [u8], ()>,
    subscriber: Subscriber<Ipc, [u8], ()>,
    events: Option<(Notifier<Ipc>, Listener<Ipc>)>,
    len: usize,
    _node: Node<Ipc>,
}

impl IoxLink {
    /// One end of a pair; `events` if receivers sleep. The other end may come later.
    pub fn new(place: &Place, side: Side, len: usize, depth: Depth, events: bool) -> Result<Self, Error> {
        let node = place.node()?;
        let tag = format!("{len}-{}-{events}", depth.buffer);
        let (out, back) = match side {
            Side::A => (format!("{tag}/there"), format!("{tag}/back")),
            Side::B => (format!("{tag}/back"), format!("{tag}/there")),
        };
        let events = match events {
            true => Some((notifier(&node, &format!("{out}/e"))?, listener(&node, &format!("{back}/e"))?)),
            false => None,
        };
        Ok(Self {
            publisher: publisher(&node, &out, len, depth)?,
            subscriber: subscriber(&node, &back, depth)?,
            events,
            len,
            _node: node,
        })
    }

    /// Both ends in one process.
    pub fn to_itself(place: &Place, len: usize) -> Result<Self, Error> {
        let node = place.node()?;
        let service = format!("{len}/self");
        Ok(Self {
            publisher: publisher(&node, &service, len, Depth::PING)?,
            subscriber: subscriber(&node, &service, Depth::PING)?,
            events: None,
            len,
            _node: node,
        })
    }

    /// Loans and drops.
    #[inline]
    pub fn loan_and_drop(&self) -> Result<(), Error> {
        loan(&self.publisher, self.len).map(drop)
    }
}

impl Link for IoxLink {
    #[inline]
    fn send(&mut self) -> Result<bool, Error> {
        let reached = step("send by iceoryx2", loan(&self.publisher, self.len)?.send())?;
        if let Some((notifier, _)) = &self.events {
            step("notify by iceoryx2", notifier.notify())?;
        }
        Ok(reached > 0)
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, Error> {
        Ok(step("receive by iceoryx2", self.subscriber.receive())?.is_some())
    }

    #[inline]
    fn wait(&mut self) -> Result<(), Error> {
        loop {
            if self.poll()? {
                return Ok(());
            }
            if let Some((_, listener)) = &self.events {
                step("wait by iceoryx2", listener.blocking_wait(|_| {}))?;
            }
        }
    }
}
