//! Start and end of a whole system: it leaves nothing behind, whoever ends it.

use std::time::Duration;

use baton_tests::{Options, System, cache_dir, descendants, is_alive, signal, wait_until};

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
    signal(system.pid(), rustix::process::Signal::KILL);
    for pid in family {
        wait_until("a process of the system ends with its supervisor", WATCHDOG, || {
            (!is_alive(pid)).then_some(())
        });
    }
}
