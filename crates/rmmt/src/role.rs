//! Which process this is: keeper, stand-in keeper, or daemon. All are the same program with the same arguments.
//!
//! | `BATON_RMMT_ROLE` | what | standard input |
//! |---|---|---|
//! | – | keeper; with `--supervised`, first asks a daemon that serves already for the role | – |
//! | `daemon` | daemon | socket to its keeper |
//! | `keeper` | stand-in, started by a daemon whose keeper was killed | its end of the daemon's socket pair |
//! | `renewed` | keeper that started its program's file anew (SIGHUP) | – |

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton_keeper::{Begin, Kept, Limits, keep};

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

/// What this process was started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Keeper,
    Daemon,
    StandIn,
    Renewed,
}

impl Role {
    pub(crate) fn from_env() -> Self {
        match std::env::var(ROLE_ENV).as_deref() {
            Ok("daemon") => Self::Daemon,
            Ok("keeper") => Self::StandIn,
            Ok("renewed") => Self::Renewed,
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

fn again(role: &str) -> Result<Command, Failed> {
    let mut command = Command::new(program()?);
    command.args(std::env::args_os().skip(1)).env(ROLE_ENV, role);
    Ok(command)
}

/// The command of a stand-in with this end of a socket pair.
pub(crate) fn stand_in(socket: OwnedFd) -> Result<Command, Failed> {
    let mut command = again("keeper")?;
    command.stdin(Stdio::from(socket));
    Ok(command)
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
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let command = || {
        let mut command = Command::new(&program);
        command.args(&arguments).env(ROLE_ENV, "daemon");
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
            let mut command = again("renewed")?;
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
