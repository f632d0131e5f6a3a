//! A keeper over real processes: this test program starts itself as the child.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;

use baton_keeper::{Begin, KeepError, Kept, Limits, Ward, keep};
use rustix::process::{Signal, getpid, kill_process};

const PLAY: &str = "KEEPER_TEST_PLAY";

/// A command that runs only `child` below, as `play` says.
fn child_command(play: &'static str) -> impl FnMut() -> Command {
    move || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(PLAY, play);
        command
    }
}

fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!("SIGKILL cannot be survived")
}

/// Not a test of its own: the role of the daemon, played when the environment says so.
#[test]
fn child() {
    let Ok(play) = std::env::var(PLAY) else { return };
    let (ward, deposits) = Ward::from_parent().unwrap().expect("started by the keeper");
    let found: Vec<_> = deposits.iter().map(|d| (d.key.as_str(), d.note.as_slice())).collect();
    let file = |text: &str| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };
    match play.as_str() {
        // The first life deposits and is killed in the same breath; the second finds everything.
        "killed" if found.is_empty() => {
            ward.deposit("gone", b"", file("x").as_fd()).unwrap();
            ward.deposit("memory", b"old", file("old").as_fd()).unwrap();
            ward.deposit("memory", b"note", file("contents").as_fd()).unwrap();
            ward.deposit("other", b"", file("other").as_fd()).unwrap();
            ward.withdraw("gone").unwrap();
            ward.ready().unwrap();
            die();
        }
        "killed" => {
            assert_eq!(found, [("memory", b"note".as_slice()), ("other", b"".as_slice())]);
            let mut text = String::new();
            let mut file = std::fs::File::from(deposits.into_iter().next().unwrap().fd);
            std::io::Seek::rewind(&mut file).unwrap();
            std::io::Read::read_to_string(&mut file, &mut text).unwrap();
            assert_eq!(text, "contents");
            std::process::exit(42)
        }
        // Enough that they do not fit the socket at once.
        "many" if found.is_empty() => {
            for i in 0..600 {
                ward.deposit(&format!("{i:04}"), &[7; 1024], file("x").as_fd()).unwrap();
            }
            die();
        }
        "many" => {
            assert_eq!(found.len(), 600);
            assert!(
                found
                    .iter()
                    .enumerate()
                    .all(|(i, (key, note))| *key == format!("{i:04}") && note.len() == 1024)
            );
            std::process::exit(43)
        }
        "config" => std::process::exit(78),
        "never ready" => die(),
        other => panic!("no such play: {other}"),
    }
}

#[test]
fn what_a_killed_child_deposited_is_handed_to_the_next() {
    assert_eq!(keep(Begin::Start, child_command("killed"), Limits::default()).unwrap(), Kept::Ended(42));
}

#[test]
fn hundreds_of_descriptors_survive() {
    assert_eq!(keep(Begin::Start, child_command("many"), Limits::default()).unwrap(), Kept::Ended(43));
}

#[test]
fn a_child_that_ends_on_its_own_is_not_restarted() {
    assert_eq!(keep(Begin::Start, child_command("config"), Limits::default()).unwrap(), Kept::Ended(78));
}

#[test]
fn children_that_never_serve_are_given_up() {
    let limits = Limits { failures_max: 3, ..Limits::default() };
    let error = keep(Begin::Start, child_command("never ready"), limits).unwrap_err();
    assert!(matches!(error, KeepError::GaveUp { failures: 3, .. }), "{error}");
}

#[test]
fn without_a_keeper_there_is_no_ward() {
    assert!(Ward::from_parent().unwrap().is_none());
}
