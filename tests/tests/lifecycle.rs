//! Start and end of a whole system: it leaves nothing behind, whoever ends it.

use std::time::Duration;

use baton_client::Observer;
use baton_tests::{Options, System, cache_dir, descendants, is_alive, signal, wait_until};
use rustix::process::Signal;

const WATCHDOG: Duration = Duration::from_secs(60);

fn shm_files() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn ctrl_c_ends_everything_and_leaves_nothing_behind() {
    let shm_before = shm_files();
    let mut system = System::start(&Options::looped(cache_dir().join("clips/road-cars-truck.mp4")));
    let family = descendants(system.pid());
    assert!(family.len() >= 6, "rmmt, vas, vss, wmits, preview and the gateway are processes: {family:?}");
    let (status, took) = system.stop();
    eprintln!("ended {} processes in {} ms", family.len() + 1, took.as_millis());
    assert!(status.success(), "{status}");
    let left: Vec<u32> = family.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(left.is_empty(), "still alive: {left:?}");
    assert!(!system.run_dir().exists(), "the run directory is gone");
    assert_eq!(shm_files(), shm_before, "nothing new in /dev/shm");
}

#[test]
fn nothing_survives_a_killed_supervisor() {
    let system = System::start(&Options::looped(cache_dir().join("clips/road-cars-truck.mp4")));
    let family = descendants(system.pid());
    signal(system.pid(), Signal::KILL);
    for pid in family {
        wait_until("a process of the system ends with its supervisor", WATCHDOG, || {
            (!is_alive(pid)).then_some(())
        });
    }
}

/// The memory's two processes replace each other. Killed both before they can, the pool is lost: then everybody begins
/// anew with the next one. Which of the two happens is a matter of milliseconds, and either way frames are judged again.
#[test]
fn keeper_and_daemon_killed_one_after_the_other_and_the_system_judges_again() {
    let system = System::start(&Options::looped(cache_dir().join("clips/road-cars-truck.mp4")));
    let judged = || {
        let tasks = system.tasks()?;
        tasks.first()?.result.as_ref().map(|result| result.decoded_at.0)
    };
    wait_until("the first result", WATCHDOG, judged);
    let uri = format!("un://{}/rmmt.sock", system.run_dir().display());
    let observe = || Observer::connect(&uri, WATCHDOG).ok()?.pool().ok();
    let mut lost = 0;
    let gaps: &[Option<u64>] = match std::env::var_os("BATON_FULL") {
        Some(_) => &[None, Some(0), Some(1), Some(4), Some(16), Some(40), Some(100)],
        None => &[None, Some(30)],
    };
    for gap in gaps {
        let keeper = wait_until("the keeper runs", WATCHDOG, || system.process("rmmt"));
        let before = wait_until("the daemon answers", WATCHDOG, observe);
        match gap {
            // The dead do not replace each other, and those who stand still do not either.
            None => signal(before.daemon_pid, Signal::STOP),
            // Varies what they get to do; nothing waits for it.
            Some(gap) => {
                signal(keeper, Signal::KILL);
                std::thread::sleep(Duration::from_millis(*gap));
            }
        }
        signal(keeper, Signal::KILL);
        signal(before.daemon_pid, Signal::KILL);
        let killed = aits_orders::Micros::monotonic_now().0;
        wait_until("frames decoded after the kill are judged", WATCHDOG, || {
            judged().filter(|decoded_at| *decoded_at > killed)
        });
        let after = wait_until("the daemon answers", WATCHDOG, observe);
        assert_ne!(after.daemon_pid, before.daemon_pid);
        let is_lost = after.pool_id != before.pool_id;
        assert!(is_lost || gap.is_some(), "killed at once, and the pool is still there");
        lost += u32::from(is_lost);
    }
    eprintln!("the pool was lost {lost} times of {}", gaps.len());
}
