//! `baton top` in a real pseudo-terminal, as a person has it: it draws, obeys keys, survives any size, and puts the
//! terminal back however it ends.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use baton_client::{Client, ConnectOptions};
use common::{Daemon, WATCHDOG, kill, until, uri_in};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// The program in a terminal.
struct Terminal {
    child: Program,
    keys: File,
    line: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Reads what is drawn, until this end of the pipe is closed.
    reader: (OwnedFd, JoinHandle<()>),
}

impl Terminal {
    fn start(uri: &str, columns: u16, rows: u16) -> Self {
        Self::sampling(uri, "50ms", columns, rows)
    }

    fn sampling(uri: &str, interval: &str, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let line: OwnedFd = open().into();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        resize(&line, columns, rows);
        // A session without a controlling terminal, even if the tests have one: this one is all it finds.
        let child = Command::new("setsid")
            .args([env!("CARGO_BIN_EXE_baton"), "top", "-i", interval, "--connect", uri])
            .env("TERM", "xterm-256color")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut output = keys.try_clone().unwrap();
        let parser = Arc::clone(&screen);
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let mut fds = [PollFd::new(&output, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                if !fds[1].revents().is_empty() {
                    return;
                }
                let Ok(count @ 1..) = output.read(&mut bytes) else { return };
                parser.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child: Program(child), keys, line, screen, reader: (stop, reader) }
    }

    /// The terminal goes away as when its window is closed, and no signal tells: it is not the controlling one.
    fn vanish(self) -> Program {
        let Self { child, reader: (stop, reader), .. } = self;
        drop(stop);
        reader.join().unwrap();
        child
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        until(text, || self.contents().contains(text).then_some(()));
    }

    /// Waits for a line with all of it: a picture arrives in pieces.
    #[track_caller]
    fn shows_row(&self, texts: &[&str]) {
        let has_all = |line: &str| texts.iter().all(|text| line.contains(text));
        until(&format!("{texts:?}"), || self.contents().lines().any(has_all).then_some(()));
    }

    #[track_caller]
    fn hides(&self, text: &str) {
        until(&format!("no {text}"), || (!self.contents().contains(text)).then_some(()));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        resize(&self.line, columns, rows);
        // The terminal is not its controlling one, so the kernel sends no signal by itself.
        kill(self.child.0.id(), Signal::WINCH);
    }

    fn signal(&self, signal: Signal) {
        kill(self.child.0.id(), signal);
    }

    /// Raw mode, alternate screen, hidden cursor.
    fn is_taken(&self) -> (bool, bool, bool) {
        let raw = !tcgetattr(&self.line).unwrap().local_modes.contains(LocalModes::ICANON);
        let screen = self.screen.lock().unwrap();
        (raw, screen.screen().alternate_screen(), screen.screen().hide_cursor())
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let status = until("the end", || self.child.0.try_wait().unwrap());
        until("the terminal as it was", || (self.is_taken() == (false, false, false)).then_some(()));
        status.code()
    }
}

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resize(line: &OwnedFd, columns: u16, rows: u16) {
    tcsetwinsize(line, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn it_draws_obeys_keys_and_puts_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let daemon = Daemon::start(&uri);
    let (client, _inbox) = Client::connect(&uri, ConnectOptions::new("camera").timeout(WATCHDOG)).unwrap();
    let _block = client.alloc(100_000).unwrap();
    let mut top = Terminal::start(&uri, 120, 20);
    top.shows("1 members, adopted 0 times");
    top.shows_row(&["camera", "attached", " KiB"]);
    assert_eq!(top.is_taken(), (true, true, true));

    top.press("?");
    top.shows("any key closes this help");
    top.press("x");
    top.hides("any key closes this help");
    top.shows("BYTES▼");
    top.press("s");
    top.shows("IN/s▼");
    top.press("r");
    top.shows("IN/s▲");

    // Paused: who comes is not shown; afterwards he is.
    top.press("p");
    top.shows("paused");
    let (other, other_inbox) = Client::connect(&uri, ConnectOptions::new("late").timeout(WATCHDOG)).unwrap();
    top.press("?");
    top.shows("any key closes");
    top.press("?");
    top.hides("any key closes");
    assert!(!top.contents().contains("late"));
    top.press("p");
    top.shows("late");
    drop((other, other_inbox));
    top.hides("late");

    // A daemon that is restarted under it is no end, but news.
    daemon.kill_serving();
    top.shows("restarted and has adopted the pool");
    top.shows("adopted 1 times");
    for end in ["q", "\x03", "\x1b"] {
        top.press(end);
        assert_eq!(top.ends(), Some(0), "{end:?}");
        top = Terminal::start(&uri, 80, 10);
        top.shows("members, adopted 1 times");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        top.signal(signal);
        assert_eq!(top.ends(), Some(0), "{signal:?}");
        top = Terminal::start(&uri, 80, 10);
        top.shows("members, adopted 1 times");
    }
}

#[test]
fn any_size_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let _daemon = Daemon::start(&uri);
    let _member = Client::connect(&uri, ConnectOptions::new("camera").timeout(WATCHDOG)).unwrap();
    let mut top = Terminal::start(&uri, 200, 50);
    top.shows("camera");
    for (columns, rows) in [(1, 1), (3, 2), (10, 3), (20, 4), (500, 3), (5, 100), (40, 12)] {
        top.resize(columns, rows);
        top.press("?"); // help on and off at each size
        top.press("?");
    }
    // What fits into 40 cells: the columns that matter; what does not is gone.
    top.hides("OLDEST");
    top.shows("NAME");
    top.shows_row(&["camera"]);
    top.resize(200, 50);
    top.shows("OLDEST");
    top.press("q");
    assert_eq!(top.ends(), Some(0));
}

#[test]
fn it_ends_with_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let _daemon = Daemon::start(&uri);
    // Nothing new to draw, so that no failing write tells it.
    let top = Terminal::sampling(&uri, "60m", 80, 10);
    top.shows("0 members, adopted 0 times");
    let mut program = top.vanish();
    let status = until("the end", || program.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
