//! One process through its lives.
//!
//! ```text
//!            foundation answers           exit            pause over
//!   Waiting ────────────────────▶ Alive ────────▶ Pause ──────────────▶ Alive
//!      │                            │  │             │
//!      │      order to end: SIGTERM │  │ exit 78, 2: │ in the first life: everything ends
//!      └──────────▶ Ended ◀─────────┘  └─▶ Failed    │ later: tried again, then Failed
//!                     ▲──────────────────────────────┘ order to end
//! ```

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aits_orders::ProcessState;
use aits_service::{ExitClass, SUPERVISED_ENV, ServiceError};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::family::{Member, STAGES, Stage};
use super::say::Say;
use super::table::Table;

/// Tells glibc to keep what is freed (mallopt(3)). Services that work at a steady rate would otherwise give memory back
/// and take it again with each frame, one page fault per page. What the user has set wins.
const KEEP_FREED_MEMORY: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "134217728"), ("MALLOC_MMAP_THRESHOLD_", "33554432")];

/// Ends of later lives with "cannot work on this machine" that are put down to passing circumstances (a predecessor that
/// still holds a lock).
const STRIKES_MAX: u32 = 5;
/// Longest log line that is passed on in one piece, bytes.
const LINE_MAX: usize = 16 * 1024;
/// How long a process whose pipes stay open may write on after its end (its own children may hold them).
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What the supervisor tells its keepers, and what it hears from them.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// Stages below the first number end; stages below the second are killed.
    limits: Arc<watch::Sender<(Stage, Stage)>>,
    /// The number of the pool that answers. When it becomes another one, who stands on it begins anew.
    memory: Arc<watch::Sender<Option<u64>>>,
    /// What cannot be mended.
    fatal: mpsc::Sender<ServiceError>,
}

impl Orders {
    pub(super) fn new(fatal: mpsc::Sender<ServiceError>) -> Self {
        Self {
            limits: Arc::new(watch::Sender::new((0, 0))),
            memory: Arc::new(watch::Sender::new(None)),
            fatal,
        }
    }

    /// The pool that answers now, if any.
    pub(super) fn memory_is(&self, number: Option<u64>) {
        self.memory.send_replace(number);
    }

    /// The number of the pool that answers, once one does.
    async fn memory(&self) -> Option<u64> {
        let mut memory = self.memory.subscribe();
        // Cannot fail: the sender lives in `self`.
        memory.wait_for(Option::is_some).await.ok().and_then(|number| *number)
    }

    /// Comes back when a pool answers that is not `known`.
    async fn until_other_memory(&self, known: u64) {
        let mut memory = self.memory.subscribe();
        let _other = memory.wait_for(|number| number.is_some_and(|number| number != known)).await;
    }

    /// This stage, and those before it, shall end.
    pub(super) fn end(&self, stage: Stage) {
        self.limits.send_modify(|(end, _)| *end = (stage + 1).max(*end));
    }

    /// This stage, and those before it, are killed.
    pub(super) fn kill(&self, stage: Stage) {
        self.limits.send_modify(|(end, kill)| {
            *kill = (stage + 1).max(*kill);
            *end = (*end).max(*kill);
        });
    }

    /// Everybody is killed.
    pub(super) fn kill_all(&self) {
        self.kill(STAGES - 1);
    }

    async fn until_end(&self, stage: Stage) {
        let mut limits = self.limits.subscribe();
        // Cannot fail: the sender lives in `self`.
        let _limits = limits.wait_for(|(end, _)| stage < *end).await;
    }

    async fn until_kill(&self, stage: Stage) {
        let mut limits = self.limits.subscribe();
        let _limits = limits.wait_for(|(_, kill)| stage < *kill).await;
    }
}

/// Why a life is over.
enum Over {
    /// It ended by itself, or somebody killed it.
    Exit(ExitStatus),
    /// It was told to end.
    Ordered,
    /// What it stood on is gone.
    FoundationLost,
    /// It could not be started.
    Spawn(std::io::Error),
}

/// The order to end came.
struct Ended;

/// Looks after one process.
pub(super) struct Keeper {
    member: Member,
    table: Arc<Table>,
    say: Say,
    orders: Orders,
    /// The last line that the process wrote in its own name: its sentence, if it ends.
    sentence: Arc<Mutex<Option<String>>>,
    backoff: Backoff,
    strikes: u32,
    lives: u32,
}

impl Keeper {
    pub(super) fn new(member: Member, table: Arc<Table>, say: Say, orders: Orders) -> Self {
        let (sentence, backoff) = (Arc::default(), Backoff::default());
        Self { member, table, say, orders, sentence, backoff, strikes: 0, lives: 0 }
    }

    /// Starts the process, again and again, until the order to end comes or it makes no sense any more.
    pub(super) async fn keep(mut self) -> Stage {
        let stage = self.member.stage;
        loop {
            let Ok(memory) = self.foundation_answers().await else { return stage };
            let begin = Instant::now();
            let over = self.live(memory).await;
            let Some(pause) = self.after(over, begin.elapsed()).await else { return stage };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.orders.until_end(stage) => return stage,
            }
        }
    }

    /// Waits until the memory answers, if this process stands on it: the number of its pool. An error if the order to
    /// end came first.
    async fn foundation_answers(&self) -> Result<Option<u64>, Ended> {
        if self.member.foundation {
            return Ok(None);
        }
        tokio::select! {
            number = self.orders.memory() => Ok(number),
            () = self.orders.until_end(self.member.stage) => Err(Ended),
        }
    }

    async fn live(&mut self, memory: Option<u64>) -> Over {
        let Member { name, stage, .. } = &self.member;
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return Over::Spawn(error),
        };
        self.lives += 1;
        let pid = child.id();
        self.table.begins(name, pid, *stage);
        self.say.event(&format!("{name} started, pid {}", pid.unwrap_or(0)));
        let lines = self.relay(&mut child);
        let over = tokio::select! {
            status = child.wait() => status.map_or_else(Over::Spawn, Over::Exit),
            () = self.orders.until_end(*stage) => Over::Ordered,
            () = self.orders.until_other_memory(memory.unwrap_or(0)), if memory.is_some() => Over::FoundationLost,
        };
        match over {
            Over::Ordered => self.end(&mut child, pid).await,
            Over::FoundationLost => kill_group(pid, &mut child).await,
            Over::Exit(_) | Over::Spawn(_) => {}
        }
        // Its last words should stand before the line that says how it ended.
        let _children_of_its_own_hold_the_pipe = tokio::time::timeout(LAST_WORDS, lines).await;
        over
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.member.program)
            .args(&self.member.arguments)
            .env(SUPERVISED_ENV, std::process::id().to_string())
            .envs(KEEP_FREED_MEMORY.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C at the terminal reaches the supervisor only.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Passes on what the process writes, line by line, until it closes both pipes.
    fn relay(&self, child: &mut Child) -> impl Future<Output = ()> + use<> {
        *self.sentence.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let pass = |name: String, sentence: Arc<Mutex<Option<String>>>, say: Say| {
            move |line: &str| {
                if let Some(own) = line.strip_prefix(&format!("{name}: ")) {
                    *sentence.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.to_owned());
                }
                say.relay(&name, line);
            }
        };
        let pass = || pass(self.member.name.clone(), self.sentence.clone(), self.say);
        let out = child.stdout.take().map(|pipe| tokio::spawn(lines(pipe, pass())));
        let err = child.stderr.take().map(|pipe| tokio::spawn(lines(pipe, pass())));
        async move {
            for reader in [out, err].into_iter().flatten() {
                let _panicked = reader.await;
            }
        }
    }

    /// SIGTERM, then SIGKILL when the supervisor says so.
    async fn end(&self, child: &mut Child, pid: Option<u32>) {
        if let Some(pid) = kernel_pid(pid) {
            let _gone_already = kill_process(pid, Signal::TERM);
        }
        tokio::select! {
            _ = child.wait() => {}
            () = self.orders.until_kill(self.member.stage) => kill_group(pid, child).await,
        }
    }

    /// What to do after a life: the pause before the next one, `None` for none.
    async fn after(&mut self, over: Over, life: Duration) -> Option<Duration> {
        let name = self.member.name.clone();
        let (why, class) = match over {
            Over::Ordered => {
                self.table.ends(&name, "ended as ordered", ProcessState::Failed);
                return None;
            }
            Over::FoundationLost => {
                self.table.ends(&name, "the memory was gone", ProcessState::Restarting);
                self.say.event(&format!("{name} begins anew with the memory"));
                return Some(Duration::ZERO);
            }
            Over::Exit(status) => (explained(status), ExitClass::of(status.code().unwrap_or(1))),
            Over::Spawn(error) => (format!("cannot be started: {error}"), ExitClass::Failed),
        };
        let sentence = self.sentence.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reason = sentence.unwrap_or_else(|| why.clone());
        if !class.restart_may_help() {
            self.strikes += 1;
            if self.lives <= 1 || self.strikes > STRIKES_MAX {
                return self.give_up(&reason, class).await;
            }
        }
        let pause = self.backoff.after(life);
        self.table.ends(&name, &reason, ProcessState::Restarting);
        self.say.event(&format!("{name} ended ({why}), starts again in {} ms", pause.as_millis()));
        Some(pause)
    }

    async fn give_up(&self, reason: &str, class: ExitClass) -> Option<Duration> {
        let name = &self.member.name;
        self.table.ends(name, reason, ProcessState::Failed);
        self.say.event(&format!("{name} failed: {reason}"));
        if self.lives <= 1 {
            let hint = self.member.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let message = format!("{name} cannot start: {reason}{hint}");
            let error = match class {
                ExitClass::Config => ServiceError::config(message),
                // A wrong call of a child is a mistake of the supervisor, not of who called it.
                _ => ServiceError::failed(message),
            };
            // A full queue: somebody else's reason to end is on its way already.
            let _other_reason_first = self.orders.fatal.try_send(error);
        }
        None
    }
}

/// Kills a process and what it started itself.
async fn kill_group(pid: Option<u32>, child: &mut Child) {
    if let Some(group) = kernel_pid(pid) {
        let _gone_already = kill_process_group(group, Signal::KILL);
    }
    let _gone_already = child.kill().await;
}

fn kernel_pid(pid: Option<u32>) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid?).ok()?)
}

fn explained(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed by SIGKILL".into(),
        (None, Some(11)) => "killed by SIGSEGV".into(),
        (None, Some(6)) => "killed by SIGABRT".into(),
        (None, Some(7)) => "killed by SIGBUS".into(),
        (None, Some(15)) => "killed by SIGTERM".into(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "for an unknown reason".into(),
    }
}

/// Calls `each` with every line. Bytes that are no UTF-8 are replaced, overlong lines cut in pieces.
async fn lines(pipe: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let Ok(chunk) = reader.fill_buf().await else { return };
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken);
        if end.is_some() || line.len() >= LINE_MAX || taken == 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if !text.is_empty() {
                each(text);
            }
            line.clear();
        }
        if taken == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
