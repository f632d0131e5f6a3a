//! Sessions at the keyboard, word for word: what each command of `tests/transcripts` prints, and its exit code.
//!
//! ```text
//!   $ baton ls --json        the command; the daemon's address comes from the environment
//!   … its standard output and error, in which `[..]` stands for anything within a line …
//!   ? 2                      its exit code, where that is not 0
//! ```
//! `BATON_BLESS=1 cargo test -p baton --test transcript` writes down what is printed now; read the difference.

mod common;

use std::path::{Path, PathBuf};

use common::{Daemon, command, text, uri_in};

fn transcript(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name)
}

/// What one command prints, with its exit code.
fn run(line: &str, uri: Option<&str>) -> String {
    let args: Vec<&str> = line.split_whitespace().skip(1).collect();
    let mut command = command(&args);
    command.env("COLUMNS", "100").env_remove("BATON_LOG");
    if let Some(uri) = uri {
        command.env("BATON_RMMT", uri);
    }
    let output = command.output().unwrap();
    let mut said = text(&output.stdout) + &text(&output.stderr);
    if let Some(uri) = uri {
        said = said.replace(uri, "un:///run/rmmt.sock");
    }
    match output.status.code() {
        Some(0) => said,
        code => said + &format!("? {}\n", code.expect("it ends by itself")),
    }
}

/// Whether a line is as it should be; `[..]` stands for anything.
fn is_like(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    let parts: Vec<&str> = wanted.split("[..]").collect();
    let Some((first, more)) = parts.split_first() else { return false };
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let Some((last, middle)) = more.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Plays the commands of a transcript again.
fn replay(name: &str, uri: Option<&str>) {
    let path = transcript(name);
    let wanted = std::fs::read_to_string(&path).unwrap();
    let mut got = String::new();
    for line in wanted.lines().filter(|line| line.starts_with("$ ")) {
        got += &format!("{line}\n{}\n", run(line.trim_start_matches("$ "), uri));
    }
    if std::env::var_os("BATON_BLESS").is_some() {
        std::fs::write(&path, &got).unwrap();
        return;
    }
    let mut lines = (got.lines(), wanted.lines());
    for number in 1.. {
        match (lines.0.next(), lines.1.next()) {
            (None, None) => break,
            (Some(line), Some(wanted)) if is_like(line, wanted) => {}
            (line, wanted) => panic!("{name}:{number}: {line:?} instead of {wanted:?}, in\n{got}"),
        }
    }
}

#[test]
fn every_help() {
    replay("help.txt", None);
}

#[test]
fn wrong_usage() {
    replay("usage.txt", None);
}

#[test]
fn a_pool_that_nobody_uses() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let _daemon = Daemon::start(&uri);
    replay("pool.txt", Some(&uri));
}

#[test]
fn anything_within_a_line() {
    assert!(is_like("abc", "abc") && is_like("abc", "a[..]c") && is_like("abc", "[..]"));
    assert!(!is_like("abcd", "abc") && !is_like("abc", "a[..]b") && !is_like("abc", ""));
}
