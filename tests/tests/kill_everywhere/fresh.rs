//! Starts and ends: daemon or keeper die at a step of their start or of their end; the next start works in the same
//! place, and an orderly end leaves nothing behind.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use baton_client::Observer;
use baton_killpoint::Point as Step;
use rustix::process::{Pid, Signal, kill_process};

use crate::control::{Control, DAEMON, KEEPER, SLOTS, step_number};
use crate::driver::{Table, WATCHDOG, children, kill, put_away, rmmt, serving_in, shm_name, uri};

const STARTING: [(usize, Step); 12] = [
    (DAEMON, Step::StartLocked),
    (DAEMON, Step::StartLockDeposited),
    (DAEMON, Step::StartPoolCreated),
    (DAEMON, Step::StartMetadataDeposited),
    (DAEMON, Step::StartPayloadDeposited),
    (DAEMON, Step::StartBound),
    (DAEMON, Step::StartListenerDeposited),
    (DAEMON, Step::StartBeforeReady),
    (DAEMON, Step::StartReady),
    (KEEPER, Step::KeepSpawned),
    (KEEPER, Step::KeepHandedAll),
    (KEEPER, Step::KeepTook),
];
const ENDING: [(usize, Step); 2] = [(DAEMON, Step::EndClosed), (DAEMON, Step::EndRemoved)];
const RESTARTING: [(usize, Step); 3] =
    [(KEEPER, Step::KeepHandedOne), (KEEPER, Step::KeepChildEnded), (KEEPER, Step::KeepDrained)];

struct Place {
    dir: tempfile::TempDir,
    control: Control,
    keeper: Child,
    outside: [u64; SLOTS],
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        put_away(self.dir.path());
    }
}

/// One run for each of these points.
pub fn run(_seed: u64) -> Table {
    let mut table = Table::default();
    let cases = STARTING.iter().map(|case| (case, 's')).chain(ENDING.iter().map(|case| (case, 'e')));
    for (&(slot, step), when) in cases.chain(RESTARTING.iter().map(|case| (case, 'r'))) {
        let dir = tempfile::tempdir().expect("a directory");
        let control = Control::create(&dir.path().join("control"));
        if when == 's' {
            control.order(slot, step_number(step), 1);
        }
        let keeper = rmmt(dir.path()).spawn().expect("the keeper starts");
        let mut place = Place { dir, control, keeper, outside: [0; SLOTS] };
        if when != 's' {
            place.serve();
            place.control.order(slot, step_number(step), 1);
        }
        match when {
            'e' => place.end(false),
            'r' => {
                let daemon = children(place.keeper.id());
                daemon.iter().for_each(|pid| kill(*pid));
                place.outside[DAEMON] += daemon.len() as u64;
                place.until("the keeper obeys", |place| !place.control.is_ordered(slot));
            }
            _ => {}
        }
        // Whatever died: the next one serves here, and ends without leaving anything.
        place.serve();
        assert!(!place.control.is_ordered(slot), "{step:?} is never reached");
        place.end(true);
        let left: Vec<_> =
            names(place.dir.path()).into_iter().filter(|name| name.starts_with("rmmt")).collect();
        assert!(left.is_empty(), "killed at {step:?}, later ended in order, and {left:?} is left");
        let name = shm_name(place.dir.path());
        assert!(!Path::new("/dev/shm").join(&name[1..]).exists(), "killed at {step:?}: {name} is left");
        table.add(&Table::of(&place.control, &place.outside));
    }
    table
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Place {
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + WATCHDOG;
        while !done(self) {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "waited in vain until {what}; the log:\n{}", log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the daemon serves, and starts it again when the keeper is dead.
    fn serve(&mut self) {
        self.until("a daemon serves", |place| {
            if place.keeper.try_wait().expect("our child").is_some()
                && serving_in(place.dir.path()).is_empty()
            {
                place.keeper = rmmt(place.dir.path()).spawn().expect("the keeper starts");
            }
            Observer::connect(&uri(place.dir.path()), Duration::ZERO)
                .is_ok_and(|mut observer| observer.audit().is_ok_and(|report| report.ok))
        });
    }

    /// SIGTERM to everybody who serves here, and their end.
    fn end(&mut self, in_order: bool) {
        for pid in serving_in(self.dir.path()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        self.until("all have ended", |place| {
            let _ = place.keeper.try_wait();
            serving_in(place.dir.path()).is_empty()
        });
        assert!(in_order || self.control.kills(DAEMON, step_number(Step::EndClosed)).load(SeqCst) < 2);
    }
}
