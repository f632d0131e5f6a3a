//! The task database: what was answered is there afterwards, whatever happened; what is not ours is left alone.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aits_orders::{Pace, StartTask, StreamId};
use aits_wmits::store::{Intent, Store, StoreError};

fn order(id: Option<&str>) -> StartTask {
    StartTask {
        id: id.map(Into::into),
        url: "rtsp://user:secret@camera/1".into(),
        pace: Pace::Fast,
        repeat: true,
        detect_hz: 7.5,
    }
}

const WHEN: &str = "2026-01-02T03:04:05Z";

#[test]
fn tasks_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let mut store = Store::open(&path).unwrap();
    let a = store.add(&order(Some("a")), WHEN).unwrap();
    let b = store.add(&order(None), WHEN).unwrap();
    assert_eq!((a.stream, b.stream, b.id.as_str()), (StreamId(1), StreamId(2), "task-2"));
    assert!(a.same_order(&order(None)) && a.created_at == WHEN && a.intent == Intent::Run);
    store.set_intent(a.stream, &Intent::Failed("no such file".into())).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    let all = store.all().unwrap();
    assert_eq!(all[0].intent, Intent::Failed("no such file".into()));
    assert_eq!(all[1], b);
    store.delete(b.stream).unwrap();
    assert_eq!(store.add(&order(None), WHEN).unwrap().stream, StreamId(3), "a number is never given twice");
}

#[test]
fn a_made_up_name_avoids_those_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("tasks.db")).unwrap();
    store.add(&order(Some("task-2")), WHEN).unwrap();
    assert_eq!(store.add(&order(None), WHEN).unwrap().id, "task-2-2");
}

#[test]
fn a_file_that_was_taken_away_takes_no_more_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let mut store = Store::open(&path).unwrap();
    let task = store.add(&order(Some("a")), WHEN).unwrap();
    let away = dir.path().join("elsewhere.db");
    std::fs::rename(&path, &away).unwrap();
    assert!(matches!(store.add(&order(Some("b")), WHEN), Err(StoreError::Gone { .. })));
    std::fs::write(&path, "another file").unwrap();
    assert!(matches!(store.set_intent(task.stream, &Intent::Stopped), Err(StoreError::Gone { .. })));
    assert!(matches!(store.delete(task.stream), Err(StoreError::Gone { .. })));
    std::fs::rename(&away, &path).unwrap();
    store.add(&order(Some("b")), WHEN).unwrap();
    assert_eq!(store.all().unwrap().len(), 2);
}

#[test]
fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let _store = Store::open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let text = "this is no database, but somebody may need it\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::Damaged { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_page_of_garbage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let mut store = Store::open(&path).unwrap();
    for _ in 0..200 {
        store.add(&order(None), WHEN).unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 3 * 4096, "several pages");
    bytes[4096..8192].fill(0xA5);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::Damaged { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn files_of_others_and_of_the_future_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE recipe (name TEXT)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    assert!(matches!(Store::open(&foreign).unwrap_err(), StoreError::Foreign { .. }));
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let newer = dir.path().join("newer.db");
    drop(Store::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&newer).unwrap_err(), StoreError::Newer { found: 99, .. }));
}

#[test]
fn an_unusable_place_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("missing/tasks.db")] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("--db"));
    }
}

#[test]
fn two_processes_do_not_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::InUse { .. }));
}

/// A process that is killed while it writes: every task that it announced is there, in order, and the file is sound.
#[test]
fn what_was_answered_survives_a_kill_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let mut announced = 0;
    for round in 1..=5_usize {
        let mut writer = Writer::start(&path);
        let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
        // Lines that libtest itself prints come in between.
        let numbers =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("added ")?.parse::<u32>().ok());
        announced = numbers.take(5 * round).last().expect("the writer writes");
        drop(writer);
        let all = Store::open(&path).unwrap().all().unwrap();
        assert!(all.len() as u32 >= announced, "{announced} announced, {} there", all.len());
        let expected: Vec<u32> = (1..=all.len() as u32).collect();
        assert_eq!(all.iter().map(|task| task.stream.0).collect::<Vec<_>>(), expected);
    }
    assert!(announced >= 25);
}

const CHILD: &str = "WMITS_STORE_TEST_FILE";

/// The child of the test above; does nothing when called without its parent.
#[test]
fn writer_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut store = Store::open(Path::new(&path)).unwrap();
    println!();
    loop {
        let added = store.add(&order(None), WHEN).unwrap();
        println!("added {}", added.stream);
    }
}

struct Writer(Child);

impl Writer {
    fn start(path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_that_is_killed", "--nocapture"])
            .env(CHILD, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
