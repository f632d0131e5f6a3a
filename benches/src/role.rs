//! The other processes of a measurement: this same program, started with a role.
//!
//! ```text
//!   parent ── spawn: role, arguments ──▶ child
//!          ◀─────────── ready ───────────        (attached, everything opened)
//!          ── go N ─────────────────────▶ works  (the parent works, too)
//!          ◀─────────── done F ──────────
//!          ── end of stdin ─────────────▶ ends
//! ```
//! Between two orders a child sleeps in `read`, so the variants of a case can all be there at once and take turns.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::board::Board;
use crate::error::{Error, step};
use crate::machine::Cores;

/// A child of the parent.
#[derive(Debug)]
pub struct Role {
    name: String,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Role {
    /// Starts a child and waits until it is ready.
    pub fn start(board: &Board, cores: &Cores, words: &[&str]) -> Result<Self, Error> {
        let mut role = Self::spawn(board, cores, words)?;
        role.expect("ready")?;
        Ok(role)
    }

    /// Starts a child; it says `ready` some time later, see [`Role::expect`].
    pub fn spawn(board: &Board, cores: &Cores, words: &[&str]) -> Result<Self, Error> {
        let name = words.join(" ");
        let what = format!("start `{name}`");
        let program = step(&what, std::env::current_exe())?;
        let (key, value) = board.env();
        let (cores_key, cores_value) = cores.env();
        let mut command = Command::new(program);
        command.arg("role").args(words).env(key, value).env(cores_key, cores_value);
        let mut child = step(&what, command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or_else(|| Error::new(&what, "no pipes"))?;
        Ok(Self { name, child, orders: Some(orders), answers: BufReader::new(answers) })
    }

    /// Tells it to work; does not wait.
    pub fn go(&mut self, count: usize) -> Result<(), Error> {
        let orders = self.orders.as_mut().ok_or_else(|| Error::new("go on", "it has ended"))?;
        step(&format!("give orders to `{}`", self.name), writeln!(orders, "{count}"))
    }

    /// Waits until it has finished; what it found.
    pub fn done(&mut self) -> Result<f64, Error> {
        let line = self.expect("done")?;
        step(&format!("understand `{}`", self.name), line.trim().parse())
    }

    /// Waits for a line that begins with `word`; the rest of it.
    pub fn expect(&mut self, word: &str) -> Result<String, Error> {
        let mut line = String::new();
        let what = format!("hear `{word}` from `{}`", self.name);
        step(&what, self.answers.read_line(&mut line))?;
        match line.strip_prefix(word) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(Error::new(what, format!("it said {line:?}"))),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.orders = None; // the end of its stdin ends it
        let _ = self.child.wait();
    }
}

/// The child's side: says ready, then works on each order until there are no more.
pub fn serve(mut work: impl FnMut(usize) -> Result<f64, Error>) -> Result<(), Error> {
    let say = |text: String| step("answer the parent", writeln!(std::io::stdout().lock(), "{text}"));
    say("ready".to_owned())?;
    for line in std::io::stdin().lock().lines() {
        let line = step("hear the parent", line)?;
        let count = step("understand the parent", line.trim().parse())?;
        say(format!("done {}", work(count)?))?;
    }
    Ok(())
}
