//! What people see: one line per event on stdout, the processes' own log lines on stderr, each with time and name.

use std::io::{IsTerminal, Write};

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Writes lines. Colours only on a terminal, and not with `NO_COLOR`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    color_out: bool,
    color_err: bool,
}

impl Say {
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            color_out: wanted && std::io::stdout().is_terminal(),
            color_err: wanted && std::io::stderr().is_terminal(),
        }
    }

    /// An event of the supervisor.
    pub(super) fn event(self, what: &str) {
        let (on, off) = if self.color_out { (BOLD, PLAIN) } else { ("", "") };
        // A reader that has gone (`aits up | head`) must not end the system.
        let _reader_gone = writeln!(std::io::stdout(), "{} {on}{what}{off}", time());
    }

    /// A log line of a process.
    pub(super) fn relay(self, name: &str, line: &str) {
        let (on, off) = if self.color_err { (DIM, PLAIN) } else { ("", "") };
        let _reader_gone =
            writeln!(std::io::stderr(), "{on}{} {name:<7} |{off} {}", time(), line.trim_start());
    }
}

fn time() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S").to_string()
}
