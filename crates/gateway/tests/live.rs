//! Pictures from a block to a browser: a real memory daemon, preview and gateway, each a process of its own. This program
//! plays wmits and vas: it orders nothing and publishes frames.
//!
//! All processes are this very program again, in the role that [`ROLE`] names; so there is no test harness here
//! (`harness = false`), and the order of the story is the order of [`story`].

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aits_frame::{ColorRange, HEADER_LEN, Header, Jpeg, Micros, PictureLayout, Sequence, StreamId};
use aits_gateway::Args as GatewayArgs;
use aits_orders::{
    ClassCount, FrameResult, ObjectClass, ResultsQuery, ResultsReply, RunDir, Task, TaskList, TrackedObject,
    WatchPreview, WatchStream, Watching, inbox, method,
};
use aits_service::CommonArgs;
use baton_client::{Client, ConnectOptions};
use baton_rpc::{Router, RpcError, Server};
use clap::Parser;

const ROLE: &str = "AITS_GATEWAY_TEST_ROLE";
const RUN: &str = "AITS_GATEWAY_TEST_RUN";
const LISTEN: &str = "AITS_GATEWAY_TEST_LISTEN";
/// Long enough for any machine; only a hang reaches it.
const WATCHDOG: Duration = Duration::from_secs(60);
const STREAM: StreamId = StreamId(1);
const SIZE: [u32; 2] = [320, 240];

type Anything = Box<dyn Error>;

/// The command line that the gateway's master gives to its workers.
#[derive(Parser)]
enum Line {
    Gateway(GatewayArgs),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("gateway") {
        let Line::Gateway(args) = Line::parse();
        return aits_gateway::run(args);
    }
    // What cargo-nextest asks of every test program.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("live: test");
        }
        return ExitCode::SUCCESS;
    }
    let run = std::env::var_os(RUN).unwrap_or_default();
    let common = CommonArgs { run: run.clone().into(), log: "warn".into(), json_log: false };
    match std::env::var(ROLE).as_deref() {
        Ok("rmmt") => baton_rmmt::run(baton_rmmt::Args {
            size: Some(64 << 20),
            no_keeper: true,
            log: "warn".into(),
            ..baton_rmmt::Args::new(RunDir::new(run).uri("rmmt"))
        }),
        Ok("preview") => aits_preview::run(aits_preview::Args { common, quality: 90, max_width: 1920 }),
        Ok("gateway") => aits_gateway::run(GatewayArgs {
            common,
            listen: std::env::var(LISTEN).unwrap_or_default(),
            workers: 2,
            hosts: Vec::new(),
            worker: false,
        }),
        _ => match story() {
            Ok(()) => {
                println!("test live ... ok");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("test live ... FAILED: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn start(role: &str, run: &Path, listen: &str) -> Result<Self, Anything> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, role).env(RUN, run).env(LISTEN, listen);
        Ok(Self(command.spawn()?))
    }

    fn kill(mut self) -> Result<(), Anything> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>, Anything>) -> Result<T, Anything> {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if begin.elapsed() > WATCHDOG {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One car in the middle of the picture.
fn result() -> FrameResult {
    FrameResult {
        stream: STREAM,
        sequence: Sequence(1),
        pts: Micros(0),
        decoded_at: Micros(0),
        finished_at: Micros(0),
        detect_ms: 1.0,
        size: SIZE,
        tracks: vec![TrackedObject {
            track: 12,
            class: ObjectClass::Car,
            score: 0.9,
            bbox: [100.0, 80.0, 220.0, 180.0].into(),
            velocity: None,
        }],
        counts: vec![ClassCount { class: ObjectClass::Car, total: 1, now: 1 }],
        mean_speed_px_s: None,
        provisional: true,
    }
}

/// What preview and gateway ask of wmits; notes who watches. Once `deleted` is set the one task is not there any more.
fn wmits(watches: &Arc<Mutex<Vec<WatchStream>>>, deleted: &Arc<AtomicBool>) -> Router {
    let (watches, deleted) = (Arc::clone(watches), Arc::clone(deleted));
    Router::new()
        .method(method::TASK_LIST, |(): ()| async { Ok(TaskList { tasks: Vec::<Task>::new() }) })
        .method(method::WATCH, move |order: WatchStream| {
            let known = order.stream == STREAM && !deleted.load(Ordering::Relaxed);
            watches.lock().unwrap_or_else(|e| e.into_inner()).push(order);
            async move {
                if known {
                    Ok(Watching { newest: None })
                } else {
                    Err(RpcError::new("no_such_stream", "there is no task with this stream"))
                }
            }
        })
        .method(method::RESULTS, |query: ResultsQuery| async move {
            if query.after == 0 {
                return Ok(ResultsReply { version: 1, result: Some(result()) });
            }
            std::future::pending().await
        })
}

/// A grey picture whose number is its sequence.
fn frame(client: &Client, sequence: u64) -> Result<baton_client::Block, Anything> {
    let layout = PictureLayout { range: ColorRange::Full, ..PictureLayout::tight(SIZE[0], SIZE[1]) };
    let mut block = client.alloc(HEADER_LEN + layout.payload_len() as usize)?;
    block.fill(128);
    let header = Header {
        stream: STREAM,
        sequence: Sequence(sequence),
        pts: Micros(sequence as i64 * 10_000),
        decoded_at: Micros::monotonic_now(),
        payload_len: layout.payload_len(),
        annotated: false,
        layout: Some(layout),
    };
    header.write_to(&mut block)?;
    Ok(block.freeze())
}

/// Publishes frames to preview, as wmits does, until told to stop.
struct Camera {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Camera {
    fn start(client: Client) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let sender = aits_service::NamedSender::new(client.clone(), inbox::PREVIEW_FRAMES);
            for sequence in 1.. {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                if let Ok(block) = frame(&client, sequence) {
                    // Nobody may receive while preview is away.
                    let _sent = sender.send_newest(block);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn story() -> Result<(), Anything> {
    let dir = tempfile::tempdir()?;
    let run = RunDir::new(dir.path());
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let watches = Arc::default();
    let server = runtime.block_on(Server::bind(&run.uri("wmits")))?;
    let deleted = Arc::new(AtomicBool::new(false));
    runtime.spawn(server.serve(wmits(&watches, &deleted), std::future::pending()));

    let _rmmt = Process::start("rmmt", dir.path(), &listen)?;
    let preview = Process::start("preview", dir.path(), &listen)?;
    let _gateway = Process::start("gateway", dir.path(), &listen)?;
    let options = ConnectOptions::new("test-camera").timeout(WATCHDOG);
    let (client, _inbox) = Client::connect(&run.uri("rmmt"), options)?;
    let camera = Camera::start(client.clone());

    until("the door answers", || Ok(TcpStream::connect(&listen).ok().map(drop)))?;
    a_port_in_use_is_said(dir.path(), &listen)?;
    boxes_are_drawn_when_asked_for(&listen)?;
    live_pictures_follow_each_other(&listen)?;
    one_block_serves_all_who_watch(&runtime, &run)?;
    a_live_view_ends_with_its_task(&listen, &deleted)?;
    deleted.store(false, Ordering::Relaxed);
    pictures_come_back_after_kills(&listen, &client, preview, dir.path())?;

    drop(camera);
    until("all blocks are accounted for and nearly none in use", || {
        let (audit, pool) = (client.audit()?, client.pool()?);
        Ok((audit.ok && pool.blocks_in_use <= 8).then_some(()))
    })
}

fn a_port_in_use_is_said(run: &Path, listen: &str) -> Result<(), Anything> {
    let mut second = Process::start("gateway", run, listen)?;
    let status = second.0.wait()?;
    if status.code() != Some(78) {
        return Err(format!("a second gateway at the same port ended with {status}").into());
    }
    Ok(())
}

/// GET; status and body.
fn get(listen: &str, path: &str) -> Result<(u16, Vec<u8>), Anything> {
    let mut stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(WATCHDOG))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("an answer without a head")?;
    let status = std::str::from_utf8(&answer)
        .or_else(|error| std::str::from_utf8(&answer[..error.valid_up_to()]))?
        .split(' ')
        .nth(1)
        .ok_or("no status")?
        .parse()?;
    Ok((status, answer.split_off(end + 4)))
}

fn snapshot(listen: &str, annotated: bool) -> Result<aits_media::jpeg::Rgb, Anything> {
    let path = format!("/api/streams/1/snapshot.jpg?annotated={}", u8::from(annotated));
    let body = until("there is a picture", || {
        // The door refuses while a worker is replaced, and answers 503 before the first picture.
        Ok(get(listen, &path).ok().filter(|(status, _)| *status == 200).map(|(_, body)| body))
    })?;
    Ok(aits_media::jpeg::decode(&body)?)
}

fn is_green([r, g, b]: [u8; 3]) -> bool {
    g > 150 && r < 110 && b < 120
}

fn boxes_are_drawn_when_asked_for(listen: &str) -> Result<(), Anything> {
    until("the car's box is drawn", || {
        let picture = snapshot(listen, true)?;
        // The middle of the left edge and of the bottom edge.
        Ok((is_green(picture.pixel(101, 130)) && is_green(picture.pixel(160, 179))).then_some(()))
    })?;
    let clean = snapshot(listen, false)?;
    let green = (0..clean.height).flat_map(|y| (0..clean.width).map(move |x| (x, y)));
    if green.filter(|&(x, y)| is_green(clean.pixel(x, y))).count() > 0 {
        return Err("there is green in the clean picture".into());
    }
    let (status, problem) = get(listen, "/api/streams/9/snapshot.jpg")?;
    if status != 404 || !String::from_utf8_lossy(&problem).contains("unknown_stream") {
        return Err(format!("an unknown stream answers {status}").into());
    }
    Ok(())
}

/// Reads three parts as a browser does: boundary, head, as many bytes as it says.
fn live_pictures_follow_each_other(listen: &str) -> Result<(), Anything> {
    let mut stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(WATCHDOG))?;
    // HTTP/1.0: the body comes as it is, without chunks.
    write!(stream, "GET /api/streams/1/live.mjpeg HTTP/1.0\r\nHost: {listen}\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut sequences = Vec::new();
    let (mut length, mut sequence) = (0, 0);
    while sequences.len() < 3 {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err("the live stream ended".into());
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse()?,
            Some(("X-Sequence", value)) => sequence = value.parse::<u64>()?,
            None if line == "\r\n" && length > 0 => {
                let mut jpeg = vec![0; length];
                reader.read_exact(&mut jpeg)?;
                aits_media::jpeg::decode(&jpeg)?;
                sequences.push(sequence);
                length = 0;
            }
            _ => {}
        }
    }
    if !sequences.is_sorted_by(|a, b| a < b) {
        return Err(format!("pictures came in the order {sequences:?}").into());
    }
    Ok(())
}

/// Two inboxes watch the same variant: for the same frame both get the same block, not a copy of it.
fn one_block_serves_all_who_watch(runtime: &tokio::runtime::Runtime, run: &RunDir) -> Result<(), Anything> {
    let preview = baton_rpc::Client::new(run.uri("preview"));
    let mut inboxes = Vec::new();
    for name in ["test.a", "test.b"] {
        let options = ConnectOptions::new("test-viewer").inbox(name).read_only();
        inboxes.push(Client::connect(&run.uri("rmmt"), options)?);
        let order = WatchPreview { stream: STREAM, inbox: name.into(), annotated: true, ttl_ms: 60_000 };
        let _watching: Watching = runtime.block_on(preview.call(method::PREVIEW_WATCH, &order))?;
    }
    let mut seen = [Vec::new(), Vec::new()];
    until("both inboxes have a block in common", || {
        for (index, (_, inbox)) in inboxes.iter_mut().enumerate() {
            while let Some(delivery) = inbox.try_recv()? {
                let sequence = Jpeg::parse(&delivery.block)?.header.sequence;
                // Kept, so that its number is not given to another one.
                seen[index].push((sequence, delivery.block));
                if seen[index].len() > 4 {
                    seen[index].remove(0);
                }
            }
        }
        let pairs = seen[0].iter().flat_map(|a| seen[1].iter().map(move |b| (a, b)));
        let mut same_frame = pairs.filter(|(a, b)| a.0 == b.0);
        match same_frame.next() {
            Some((a, b)) if a.1.id() == b.1.id() => Ok(Some(())),
            Some((a, _)) => Err(format!("frame {:?} came in two blocks", a.0).into()),
            None => Ok(None),
        }
    })
}

fn a_live_view_ends_with_its_task(listen: &str, deleted: &AtomicBool) -> Result<(), Anything> {
    let mut stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(WATCHDOG))?;
    write!(stream, "GET /api/streams/1/live.mjpeg HTTP/1.0\r\nHost: {listen}\r\n\r\n")?;
    stream.read_exact(&mut [0; 1000])?;
    deleted.store(true, Ordering::Relaxed);
    let (begin, mut buffer) = (Instant::now(), vec![0; 1 << 16]);
    while stream.read(&mut buffer)? > 0 {
        if begin.elapsed() > WATCHDOG {
            return Err("the task is deleted and its live view goes on".into());
        }
    }
    Ok(())
}

fn pictures_come_back_after_kills(
    listen: &str,
    client: &Client,
    preview: Process,
    dir: &Path,
) -> Result<(), Anything> {
    let workers = || -> Result<Vec<u32>, Anything> {
        let members = client.members()?;
        Ok(members.into_iter().filter(|m| m.name == "gateway-worker").map(|m| m.pid).collect())
    };
    let before = until("both workers are in the pool", || Ok(Some(workers()?).filter(|w| w.len() == 2)))?;
    Command::new("kill").arg("-KILL").arg(before[0].to_string()).status()?;
    until("another worker has taken its place", || {
        let now = workers()?;
        Ok((now.len() == 2 && !now.contains(&before[0])).then_some(()))
    })?;
    for _ in 0..2 {
        snapshot(listen, true)?; // one per worker: connections are handed out in turn
    }

    preview.kill()?;
    let _again = Process::start("preview", dir, listen)?;
    let first = live_sequence(listen)?;
    until("newer pictures come from the new preview", || Ok((live_sequence(listen)? > first).then_some(())))
}

/// The number of the picture that the first part of a live stream carries.
fn live_sequence(listen: &str) -> Result<u64, Anything> {
    until("a live picture comes", || {
        let Ok(mut stream) = TcpStream::connect(listen) else { return Ok(None) };
        stream.set_read_timeout(Some(WATCHDOG))?;
        write!(stream, "GET /api/streams/1/live.mjpeg HTTP/1.0\r\nHost: {listen}\r\n\r\n")?;
        for line in BufReader::new(stream).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if let Some(value) = line.strip_prefix("X-Sequence: ") {
                return Ok(Some(value.trim_end().parse()?));
            }
        }
        // An error answer: preview is away.
        Ok(None)
    })
}
