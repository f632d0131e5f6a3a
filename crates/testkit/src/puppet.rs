//! Another process that does what the test tells it: orders go to its standard input, answers are the lines of its
//! standard output that begin with `@@ `. Whatever else is on that stream (a test harness writes there, too, and may leave
//! its line open) is passed over.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use crate::WATCHDOG;

/// A process that does what it is told; killed when dropped.
pub struct Puppet {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Puppet {
    /// Starts it.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let orders = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (tx, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once("@@ ") {
                    let _ = tx.send(answer.to_owned());
                }
            }
        });
        Self { child, orders, answers }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order, one line, without waiting for the answer.
    ///
    /// # Panics
    /// If it has closed its standard input.
    #[track_caller]
    pub fn order(&mut self, order: &str) {
        // In one piece: some count what they read.
        self.orders.write_all(format!("{order}\n").as_bytes()).expect("it takes orders");
    }

    /// The next answer.
    ///
    /// # Panics
    /// If it has ended, or says nothing for as long as the watchdog lasts.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        match self.answers.recv_timeout(WATCHDOG) {
            Ok(answer) => answer,
            Err(error) => panic!("no answer ({error}); the process: {:?}", self.child.try_wait()),
        }
    }

    /// Gives an order and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// Never for a child of ours.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_behind_what_else_is_said() {
        let echo = r#"while read line; do printf 'test x ... @@ %s\nnoise\n' "$line"; done"#;
        let mut puppet = Puppet::start(Command::new("sh").args(["-c", echo]));
        assert_eq!(puppet.ask("one two"), "one two");
        assert_eq!(puppet.ask("three"), "three");
        let pid = puppet.pid();
        drop(puppet);
        assert!(!crate::is_alive(pid));
    }
}
