//! vas as it runs: a process of its own beside a real memory daemon; frames arrive in the inbox that was ordered, and
//! killing vas loses no block.
//!
//! Both processes are this very program again, in the role that [`ROLE`] names; so there is no test harness here
//! (`harness = false`), and the order of the story is the order of [`main`].

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use aits_frame::{Picture, StreamId};
use aits_orders::{
    CloseStream, OpenStream, Opened, Pace, RunDir, SourceState, StreamsQuery, StreamsReply, method,
};
use aits_service::CommonArgs;
use baton_client::{Client, ConnectOptions, Inbox};

const ROLE: &str = "AITS_VAS_TEST_ROLE";
const RUN: &str = "AITS_VAS_TEST_RUN";
/// Long enough for any machine; only a hang reaches it.
const WATCHDOG: Duration = Duration::from_secs(60);

type Anything = Box<dyn Error>;

fn main() -> ExitCode {
    // What cargo-nextest asks of every test program.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("system: test");
        }
        return ExitCode::SUCCESS;
    }
    let run = std::env::var_os(RUN).unwrap_or_default();
    match std::env::var(ROLE).as_deref() {
        Ok("rmmt") => baton_rmmt::run(baton_rmmt::Args {
            size: Some(64 << 20),
            no_keeper: true,
            log: "warn".into(),
            ..baton_rmmt::Args::new(RunDir::new(run).uri("rmmt"))
        }),
        Ok("vas") => aits_vas::run(aits_vas::Args {
            decode_threads: 1,
            common: CommonArgs { run: run.into(), log: "warn".into(), json_log: false },
        }),
        _ => match story() {
            Ok(()) => {
                println!("test system ... ok");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("test system ... FAILED: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn start(role: &str, run: &Path) -> Result<Self, Anything> {
        let child = Command::new(std::env::current_exe()?).env(ROLE, role).env(RUN, run).spawn()?;
        Ok(Self(child))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn kill(mut self) -> Result<(), Anything> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// SIGTERM, then its exit status.
    fn terminate(mut self) -> Result<ExitStatus, Anything> {
        Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status()?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn clip(name: &str) -> String {
    format!("{}/../media/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn order(stream: u32, name: &str) -> OpenStream {
    let stream = StreamId(stream);
    OpenStream { stream, url: clip(name), pace: Pace::Realtime, repeat: true, inbox: "test.frames".into() }
}

struct House {
    client: Client,
    inbox: Inbox,
    vas: baton_rpc::Client,
    runtime: tokio::runtime::Runtime,
}

impl House {
    fn call<P: serde::Serialize, R: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        params: &P,
    ) -> Result<R, Anything> {
        let started = Instant::now();
        loop {
            match self.runtime.block_on(self.vas.call(name, params)) {
                Ok(result) => return Ok(result),
                // vas is still starting.
                Err(baton_rpc::CallError::Connect { .. }) if started.elapsed() < WATCHDOG => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes `count` frames of a stream and checks the luma of each: it names the number of the frame in its clip.
    fn take(&mut self, stream: u32, count: usize, frames_in_clip: u64) -> Result<Vec<u64>, Anything> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let delivery = self.inbox.recv(Some(WATCHDOG))?.ok_or("no frame came")?;
            let picture = Picture::parse(&delivery.block)?;
            let header = *picture.header();
            if header.stream != StreamId(stream) {
                continue;
            }
            let expected = 20 + 4 * (header.sequence.0 % frames_in_clip) as u8;
            for row in [0, 100, 181] {
                let pixels = &picture.plane(0).row(row)[..100];
                check(pixels.iter().all(|pixel| pixel.abs_diff(expected) <= 3), "a pixel is wrong")?;
            }
            seen.push(header.sequence.0);
        }
        Ok(seen)
    }

    /// Waits until the daemon has taken back what a dead process held, then has all counts checked.
    fn balance(&mut self, dead: u32) -> Result<(), Anything> {
        let started = Instant::now();
        while self.client.members()?.iter().any(|member| member.pid == dead) {
            check(started.elapsed() < WATCHDOG, "the daemon does not notice a death")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        while self.inbox.try_recv()?.is_some() {}
        let audit = self.client.audit()?;
        check(audit.ok, &format!("the audit found {:?}", audit.problems))?;
        check(audit.queued == 0, "a message is left over")?;
        check(audit.held == 0, &format!("{} blocks are left over", audit.held))
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), Anything> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn story() -> Result<(), Anything> {
    let dir = tempfile::tempdir()?;
    let run = RunDir::new(dir.path());
    let _daemon = Process::start("rmmt", dir.path())?;
    let options = ConnectOptions::new("test").inbox("test.frames").timeout(WATCHDOG);
    let (client, inbox) = Client::connect(&run.uri("rmmt"), options)?;
    let vas = baton_rpc::Client::new(run.uri("vas"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut house = House { client, inbox, vas, runtime };

    // Frames come, all of them, in place.
    let process = Process::start("vas", dir.path())?;
    let opened: Opened = house.call(method::VAS_OPEN, &order(1, "h264_bframes.mp4"))?;
    check(!opened.already, "nothing was open")?;
    let opened: Opened = house.call(method::VAS_OPEN, &order(1, "h264_bframes.mp4"))?;
    check(opened.already, "it was open")?;
    let _: Opened = house.call(method::VAS_OPEN, &order(9, "no-such-file.mp4"))?;
    let seen = house.take(1, 60, 50)?;
    check(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "a frame is missing")?;

    // It tells what it does.
    let told: StreamsReply = house.call(method::VAS_STREAMS, &StreamsQuery { version: 0, wait_ms: 0 })?;
    check(told.streams.len() == 2, "two streams were opened")?;
    let (good, bad) = (&told.streams[0], &told.streams[1]);
    check(good.state == SourceState::Running, "the first runs")?;
    let counters = good.counters;
    check(counters.published >= 60 && counters.copied == 0, "frames are published, none is copied")?;
    let dropped = counters.no_receiver + counters.inbox_full;
    check(counters.decoded == counters.published + dropped, "the counters do not balance")?;
    check(bad.state == SourceState::Failed, "the second has no file")?;
    check(
        bad.reason.as_deref().is_some_and(|reason| reason.starts_with("there is no file ")),
        "it says why",
    )?;

    // Killed while it decodes: every block comes back.
    let pid = process.pid();
    process.kill()?;
    house.balance(pid)?;

    // Its successor knows nothing and does what it is told.
    let process = Process::start("vas", dir.path())?;
    let reply: StreamsReply =
        house.call(method::VAS_STREAMS, &StreamsQuery { version: told.version, wait_ms: 0 })?;
    check(reply.streams.is_empty() && reply.version != told.version, "a new process begins anew")?;
    let _: Opened = house.call(method::VAS_OPEN, &order(1, "h264_bframes.mp4"))?;
    let _: Opened = house.call(method::VAS_OPEN, &order(2, "h265.mp4"))?;
    house.take(2, 10, 50)?;
    let () = house.call(method::VAS_CLOSE, &CloseStream { stream: StreamId(2) })?;
    house.take(1, 10, 50)?;

    // SIGTERM ends it as ordered, in the middle of a stream.
    let pid = process.pid();
    let status = process.terminate()?;
    check(status.success(), &format!("vas ended with {status}"))?;
    house.balance(pid)
}
