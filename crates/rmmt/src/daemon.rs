//! The process: keeper or daemon, set-up, accept loop, signals, end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use baton_address::{AsyncListener, Stream};
use baton_keeper::{Deposit, KeepError, RETIRED, Ward, WardError};
use baton_killpoint::step;
use baton_pool::PoolFds;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tracing_subscriber::EnvFilter;

use crate::Args;
use crate::admission::Policy;
use crate::base::{Base, BaseError, Files, Places, Shm};
use crate::chest::Chest;
use crate::classic::Classic;
use crate::config::{self, ConfigError};
use crate::door::Visitor;
use crate::follow::AskError;
use crate::keeping::Keeping;
use crate::registry::{Registry, Shared};
use crate::role::{self, Role};
use crate::watch::{Process, ProcessError};

/// Exit code for a command line that cannot work on this machine (EX_CONFIG of sysexits).
const EXIT_CONFIG: u8 = 78;

/// Connections that have not attached, at most. One more pushes out the oldest.
const STRANGERS_MAX: usize = 64;

/// How long the daemon rests when it has no descriptor left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A lasting lack of descriptors is said once in this time, not at every try.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// How often closed endpoints are looked at that still held something.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What every session works with.
pub(crate) struct House {
    pub(crate) registry: Shared,
    pub(crate) policy: Policy,
    pub(crate) lives: u32,
    pub(crate) pool_id: u64,
    pub(crate) classic: Classic,
    pub(crate) keeping: Keeping,
    fds: PoolFds,
    payload_read_only: OwnedFd,
}

impl House {
    /// The descriptors of an attached member, in the protocol's order.
    pub(crate) fn descriptors(&self, read_only: bool, wake: OwnedFd) -> io::Result<Vec<OwnedFd>> {
        let payload = if read_only { &self.payload_read_only } else { &self.fds.payload };
        Ok(vec![self.fds.metadata.try_clone()?, payload.try_clone()?, wake])
    }
}

/// Why the daemon ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Base(#[from] BaseError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Keeper(#[from] WardError),
    #[error("{0}")]
    Keep(#[from] KeepError),
    #[error("{0}")]
    Ask(#[from] AskError),
    #[error("the daemon that this process kept has ended")]
    Lost,
    #[error("the program's file cannot be started anew: {0}")]
    Renew(#[source] io::Error),
    #[error("this program's own file cannot be found: {0}")]
    Myself(#[source] io::Error),
    #[error("--log-level {given:?} is no filter: {reason}; try `info`")]
    Log { given: String, reason: String },
    #[error("the daemon cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Failed {
    fn code(&self) -> u8 {
        match self {
            Self::Base(error) if error.is_config() => EXIT_CONFIG,
            Self::Log { .. } | Self::Config(_) => EXIT_CONFIG,
            _ => 1,
        }
    }
}

/// Runs the memory daemon until SIGTERM or SIGINT: as the keeper, which starts this same program with the same
/// arguments again as the daemon, or as that daemon.
///
/// Exit code 0 after a signal, 78 if the arguments cannot work on this machine, 1 for every other failure; the reason is
/// one line on stderr. Call it on the main thread before any other thread is started.
pub fn run(args: Args) -> ExitCode {
    match start(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("rmmt: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn start(args: &Args) -> Result<u8, Failed> {
    init_logging(args)?;
    let (args, policy) = config::settle(args)?;
    let args = &args;
    if args.check_config || Role::from_env() == Role::Check {
        Places::parse(args)?;
        crate::base::check(args)?;
        println!("rmmt: the settings are good");
        return Ok(0);
    }
    match Role::from_env() {
        Role::Daemon => match Ward::from_parent()? {
            Some((ward, deposits)) => daemon(args, policy, Some(ward), deposits),
            None => Err(WardError::NoKeeper.into()),
        },
        Role::Keeper if args.no_keeper => daemon(args, policy, None, Vec::new()),
        role => role::keeper(args, role),
    }
}

fn init_logging(args: &Args) -> Result<(), Failed> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Failed::Log { given: args.log.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(!args.log_plain && io::IsTerminal::is_terminal(&io::stderr()));
    // Fails only if the program around us logs already, which then stays so.
    let _ = if args.log_plain { builder.without_time().try_init() } else { builder.try_init() };
    Ok(())
}

/// A member needs three descriptors here and one at the keeper: 2047 of them more than the customary 1024.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!("rmmt: the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn daemon(args: &Args, policy: Policy, ward: Option<Ward>, deposits: Vec<Deposit>) -> Result<u8, Failed> {
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::Runtime)?;
    match LocalSet::new().block_on(&runtime, serve(args, policy, Chest::new(ward), deposits))? {
        Served::Ended => Ok(0),
        Served::Retired => Ok(RETIRED),
    }
}

async fn serve(
    args: &Args,
    policy: Policy,
    mut chest: Chest,
    mut deposits: Vec<Deposit>,
) -> Result<Served, Failed> {
    // Before there is anything that an early signal could leave behind.
    let mut term = signal(SignalKind::terminate()).map_err(Failed::Runtime)?;
    let mut int = signal(SignalKind::interrupt()).map_err(Failed::Runtime)?;
    let base = Base::lay(args, &mut chest, &mut deposits)?;
    let Base { pool, fds, payload_read_only, listeners, files, shm, lives, id: pool_id } = base;
    let metrics = listeners.metrics.map(AsyncListener::new).transpose().map_err(Failed::Runtime)?;
    let listeners: Vec<_> = listeners
        .clients
        .into_iter()
        .map(AsyncListener::new)
        .collect::<io::Result<_>>()
        .map_err(Failed::Runtime)?;

    let bytes = pool.usage().total_bytes;
    let registry = Rc::new(RefCell::new(Registry::new(pool, chest)));
    if lives > 0 {
        Registry::adopt(&registry, deposits);
    }
    let name = shm.as_ref().map(|shm| shm.name.as_str());
    let classic = Classic::new(registry.borrow().pool(), name, lives);
    let keeping = Keeping::new();
    let house = Rc::new(House { registry, policy, lives, pool_id, classic, keeping, fds, payload_read_only });
    step!(StartBeforeReady);
    house.registry.borrow().ready();
    step!(StartReady);
    let places: Vec<_> = listeners.iter().map(|listener| listener.local().to_string()).collect();
    tracing::info!("rmmt: {} MiB ready at {}", bytes >> 20, places.join(" and "));

    if let Some(listener) = metrics {
        spawn_local(crate::metrics::serve(Rc::clone(&house), listener));
    }
    tokio::select! {
        () = accept_all(&house, listeners) => {}
        () = sweep_leavers(&house) => {}
        () = signs_of_life(&house) => {}
        () = crate::quota::watch(&house) => {}
        () = supervisor_ends() => tracing::info!("rmmt: the supervisor has ended"),
        () = house.keeping.look_after(&house.registry) => {
            tracing::info!("rmmt: making room for the next daemon");
            return Ok(Served::Retired);
        }
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    end(&house, &files);
    shm.iter().for_each(Shm::remove);
    Ok(Served::Ended)
}

/// How serving came to its end.
enum Served {
    /// For good.
    Ended,
    /// The next daemon goes on where this one stopped.
    Retired,
}

/// Tells the keeper, and it systemd, that this loop turns; as often as systemd asked for, thrice.
async fn signs_of_life(house: &House) {
    let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(micros) = micros.filter(|micros| *micros > 0) else { return std::future::pending().await };
    loop {
        house.registry.borrow().chest.tell(Ward::alive);
        tokio::time::sleep(Duration::from_micros(micros / 3)).await;
    }
}

/// Comes back when the process that supervises this daemon has ended; never if there is none.
async fn supervisor_ends() {
    let Some((pid, start_time)) = role::supervised_by() else { return std::future::pending().await };
    match Process::open(pid, start_time) {
        Ok(process) => process.ended().await,
        Err(ProcessError::Ended { .. }) => {}
        Err(error) => {
            tracing::warn!("rmmt: the supervisor cannot be watched: {error}");
            std::future::pending().await
        }
    }
}

fn end(house: &House, files: &Files) {
    house.registry.borrow().close_all();
    step!(EndClosed);
    files.remove();
    step!(EndRemoved);
    house.registry.borrow().chest.tell(|ward| ward.leaving(0));
    tracing::info!("rmmt: ended");
}

/// Looks after the endpoints that were closed while they still held blocks.
async fn sweep_leavers(house: &House) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        house.registry.borrow_mut().sweep();
    }
}

/// Accepts for ever, at every address. Strangers are bounded in number, members by the pool's table.
async fn accept_all(house: &Rc<House>, listeners: Vec<AsyncListener>) {
    let strangers = Strangers::default();
    let number = Rc::new(Cell::new(0u64));
    let tasks: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (house, strangers, number) = (Rc::clone(house), Rc::clone(&strangers), Rc::clone(&number));
            spawn_local(async move { accept_at(&house, &listener, &strangers, &number).await })
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!("rmmt: a listener failed: {error}");
        }
    }
}

async fn accept_at(house: &Rc<House>, listener: &AsyncListener, strangers: &Strangers, number: &Cell<u64>) {
    let mut warned = None::<Instant>;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                number.set(number.get() + 1);
                open_session(house, strangers, number.get(), stream);
            }
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(
                        "rmmt: connections cannot be accepted now: {error}; is the limit of open files too low?"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Strangers = Rc<RefCell<VecDeque<(u64, AbortHandle)>>>;

fn open_session(house: &Rc<House>, strangers: &Strangers, number: u64, stream: Stream) {
    let visitor = Visitor { house: Rc::clone(house), number };
    let known = Rc::clone(strangers);
    let forget = move || known.borrow_mut().retain(|(n, _)| *n != number);
    let task = spawn_local({
        let forget = forget.clone();
        async move {
            visitor.enter(stream, &forget).await;
            forget();
        }
    });
    let mut strangers = strangers.borrow_mut();
    strangers.push_back((number, task.abort_handle()));
    if strangers.len() > STRANGERS_MAX
        && let Some((_, oldest)) = strangers.pop_front()
    {
        oldest.abort();
    }
}
