//! Running programs: found or not, shown or silent, and what they said when they failed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Error;

/// Where a program lies on PATH, if it does.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_path_buf()
}

/// `cargo`, the one that runs this.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output is for people; an exit code other than 0 is an error.
pub fn show(command: &mut Command) -> Result<(), Error> {
    let text = describe(command);
    eprintln!("$ {text}");
    let status =
        command.status().map_err(|_| Error::NoProgram(command.get_program().to_string_lossy().into()))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: text, status: status.to_string(), detail: String::new() })
}

/// Runs a command silently and returns what it wrote to standard output; when it fails, the error carries the end of
/// what it wrote to standard error.
pub fn quiet(command: &mut Command) -> Result<String, Error> {
    let text = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|_| Error::NoProgram(command.get_program().to_string_lossy().into()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let detail = format!(":\n{}", last_lines(&said, 8));
    Err(Error::Failed { command: text, status: output.status.to_string(), detail })
}

/// The last `n` lines of a text.
pub fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}

/// Runs a long and talkative command behind one line that shows what it is at; when it fails, the error carries the end
/// of what it said. Where there is no terminal, the message alone is printed.
pub fn behind_spinner(message: &str, command: &mut Command) -> Result<(), Error> {
    let text = describe(command);
    let program = command.get_program().to_string_lossy().into_owned();
    eprintln!("{message}");
    let (reader, writer) = std::io::pipe().map_err(|source| Error::Io { path: "pipe".into(), source })?;
    let other = writer.try_clone().map_err(|source| Error::Io { path: "pipe".into(), source })?;
    let child = command.stdin(Stdio::null()).stdout(writer).stderr(other).spawn();
    let mut child = child.map_err(|_| Error::NoProgram(program))?;
    // The command still holds the writing ends; without them the reader sees the end when the child has ended.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let spinner = ProgressBar::new_spinner();
    spinner.set_style(
        ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}").expect("a valid template"),
    );
    spinner.enable_steady_tick(Duration::from_millis(120));
    let mut said = Vec::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        spinner.set_message(line.clone());
        said.push(line);
    }
    spinner.finish_and_clear();
    let status = child.wait().map_err(|source| Error::Io { path: text.clone().into(), source })?;
    if status.success() {
        return Ok(());
    }
    let detail = format!(":\n{}", last_lines(&said.join("\n"), 8));
    Err(Error::Failed { command: text, status: status.to_string(), detail })
}
