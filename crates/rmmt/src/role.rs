//! Which process this is: keeper, stand-in keeper, or daemon. All are the same program with the same arguments.
//!
//! | `BATON_RMMT_ROLE` | what | standard input |
//! |---|---|---|
//! | – | keeper; with `--supervised`, first asks a daemon that serves already for the role | – |
//! | `daemon` | daemon | socket to its keeper |
//! | `keeper` | stand-in, started by a daemon whose keeper was killed | its end of the daemon's socket pair |
//! | `renewed` | keeper that started its program's file anew (SIGHUP) | – |
//! | `check` | whether this file could take over: reads its settings and ends | – |
//!
//! Whoever replaces somebody who was killed is the very program that runs (`/proc/self/exe`), whatever lies at its path by
//! now: what is there may be half written, or of another version, and nobody asked for an upgrade. Only SIGHUP takes the
//! program's file, and has it checked first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use baton_keeper::{Begin, Kept, Limits, keep};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::Args;
use crate::base::Places;
use crate::daemon::{Failed, raise_descriptor_limit};
use crate::follow::{self, Asked};
use crate::watch::start_time_of;

/// Tells a process what it is.
const ROLE_ENV: &str = "BATON_RMMT_ROLE";

/// The process that started the first keeper of a supervised daemon: `PID:START_TIME`. When it ends, the daemon does.
const SUPERVISOR_ENV: &str = "BATON_RMMT_SUPERVISOR";

/// Set for a daemon whose keeper is a stand-in.
const STAND_IN_ENV: &str = "BATON_RMMT_STAND_IN";

/// How long a renewed keeper looks for the daemon it kept.
const RENEWAL: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(50);

/// How long a program may take to check its settings, and how much of what it says is read.
const CHECK: Duration = Duration::from_secs(10);
const SAID_MAX: u64 = 4096;

/// What this process was started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Keeper,
    Daemon,
    StandIn,
    Renewed,
    Check,
}

impl Role {
    pub(crate) fn from_env() -> Self {
        match std::env::var(ROLE_ENV).as_deref() {
            Ok("daemon") => Self::Daemon,
            Ok("keeper") => Self::StandIn,
            Ok("renewed") => Self::Renewed,
            Ok("check") => Self::Check,
            _ => Self::Keeper,
        }
    }
}

/// Whether the keeper that started this daemon was itself started by a daemon.
pub(crate) fn keeper_is_stand_in() -> bool {
    std::env::var_os(STAND_IN_ENV).is_some()
}

/// The program's file. If it was replaced by another one, that one.
fn program() -> Result<PathBuf, Failed> {
    let program = std::env::current_exe().map_err(Failed::Myself)?;
    let text = program.as_os_str().as_encoded_bytes();
    // What the kernel says of a file that was removed or replaced.
    match text.strip_suffix(b" (deleted)").and_then(|path| std::str::from_utf8(path).ok()) {
        Some(path) if !program.exists() => Ok(PathBuf::from(path)),
        _ => Ok(program),
    }
}

/// Which program to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that runs here.
    Same,
    /// The one that lies at its path by now.
    File,
}

fn again(role: &str, which: Which) -> Result<Command, Failed> {
    Ok(command(role, which, &program()?))
}

fn command(role: &str, which: Which, program: &Path) -> Command {
    let mut command = match which {
        Which::Same if !is_this(program) => {
            let mut command = Command::new(THIS);
            command.arg0(program);
            command
        }
        _ => Command::new(program),
    };
    command.args(std::env::args_os().skip(1)).env(ROLE_ENV, role);
    command
}

/// The program of the process that says so, also when its file has gone.
const THIS: &str = "/proc/self/exe";

/// Whether this file is the program that runs here. By its path it has its name in `ps`.
fn is_this(program: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    identity(program).is_some_and(|file| identity(Path::new(THIS)) == Some(file))
}

/// The command of a stand-in with this end of a socket pair.
pub(crate) fn stand_in(socket: OwnedFd, which: Which) -> Result<Command, Failed> {
    let mut command = again("keeper", which)?;
    command.stdin(Stdio::from(socket));
    Ok(command)
}

/// Why the program's file cannot take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnfitError {
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("it does not end within {} s when asked to check its settings", CHECK.as_secs())]
    Hangs,
    #[error("asked to check its settings it ended with {status}: {said}")]
    Refuses { status: ExitStatus, said: String },
}

/// Has the program's file read these settings, and says what it said if it would not serve with them.
pub(crate) async fn check_file() -> Result<PathBuf, (PathBuf, UnfitError)> {
    let command = again("check", Which::File);
    let path = command.as_ref().map_or_else(|_| PathBuf::new(), |command| command.get_program().into());
    match run_check(command).await {
        Ok(()) => Ok(path),
        Err(error) => Err((path, error)),
    }
}

async fn run_check(command: Result<Command, Failed>) -> Result<(), UnfitError> {
    let command = command.map_err(|error| UnfitError::Start(io::Error::other(error)))?;
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(UnfitError::Start)?;
    let mut said = Vec::new();
    let ended = async {
        if let Some(stderr) = child.stderr.take() {
            stderr.take(SAID_MAX).read_to_end(&mut said).await?;
        }
        child.wait().await
    };
    let status = timeout(CHECK, ended).await.map_err(|_| UnfitError::Hangs)?.map_err(UnfitError::Start)?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned();
    Err(UnfitError::Refuses { status, said: last })
}

/// Keeps, as the process that was started by hand or by a supervisor, or as a stand-in.
pub(crate) fn keeper(args: &Args, role: Role) -> Result<u8, Failed> {
    let places = Places::parse(args)?;
    raise_descriptor_limit();
    let supervisor = args.supervised.then(|| supervisor(role)).flatten();
    let begin = match role {
        Role::StandIn => {
            let socket = io::stdin().as_fd().try_clone_to_owned().map_err(Failed::Myself)?;
            Begin::Follow { socket, replace_daemon: false }
        }
        Role::Renewed => renewed(&places)?,
        _ if args.supervised => match ask(&places, |error| matches!(error, follow::AskError::Io(_)))? {
            Asked::Kept(socket) => Begin::Follow { socket, replace_daemon: false },
            Asked::NobodyThere => Begin::Start,
        },
        _ => Begin::Start,
    };
    let program = program()?;
    let command = || {
        let mut command = command("daemon", Which::Same, &program);
        match role {
            Role::StandIn => command.env(STAND_IN_ENV, "1"),
            _ => command.env_remove(STAND_IN_ENV),
        };
        if let Some(supervisor) = &supervisor {
            command.env(SUPERVISOR_ENV, supervisor);
        }
        command
    };
    match keep(begin, command, Limits::default())? {
        Kept::Ended(code) => Ok(code),
        Kept::Renew => {
            tracing::info!("rmmt: the keeper begins anew from {}", program.display());
            let mut command = again("renewed", Which::File)?;
            command.env_remove(STAND_IN_ENV);
            Err(Failed::Renew(command.exec()))
        }
    }
}

/// The daemon that this process kept before it began anew. There is a stand-in meanwhile, so nothing is started here.
fn renewed(places: &Places) -> Result<Begin, Failed> {
    match ask(places, |_| true)? {
        Asked::Kept(socket) => Ok(Begin::Follow { socket, replace_daemon: true }),
        Asked::NobodyThere => Err(Failed::Lost),
    }
}

/// Asks the daemon that serves already; again after a passing error, as when it is killed meanwhile: its stand-in starts
/// the next one at once.
fn ask(places: &Places, is_passing: impl Fn(&follow::AskError) -> bool) -> Result<Asked, Failed> {
    let end = Instant::now() + RENEWAL;
    loop {
        match follow::ask(places.first_socket()) {
            Ok(asked) => return Ok(asked),
            Err(error) if !is_passing(&error) || Instant::now() >= end => return Err(error.into()),
            Err(_) => std::thread::sleep(PACE),
        }
    }
}

/// Who supervises: the parent of the first keeper. A stand-in is a child of the daemon, and knows it from there.
fn supervisor(role: Role) -> Option<String> {
    let known = || std::env::var(SUPERVISOR_ENV).ok();
    match role {
        Role::StandIn => return known(),
        Role::Renewed if known().is_some() => return known(),
        _ => {}
    }
    let pid = rustix::process::getppid()?.as_raw_pid();
    let start = start_time_of(pid.unsigned_abs()).ok()?;
    Some(format!("{pid}:{start}"))
}

/// The supervisor whose end is this daemon's end, if there is one: its pid and start time.
pub(crate) fn supervised_by() -> Option<(u32, u64)> {
    let text = std::env::var(SUPERVISOR_ENV).ok()?;
    let (pid, start) = text.split_once(':')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}
