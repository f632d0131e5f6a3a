//! Real child processes, small ones: shells.

use std::ffi::OsString;

use aits_orders::ProcessState;

use super::*;

struct House {
    table: Arc<Table>,
    orders: Orders,
    failed: mpsc::Receiver<ServiceError>,
    keepers: tokio::task::JoinSet<Stage>,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let (fatal, failed) = mpsc::channel(4);
        let dir = tempfile::tempdir().unwrap();
        let orders = Orders::new(fatal);
        orders.memory_is(Some(1));
        Self { table: Arc::default(), orders, failed, keepers: tokio::task::JoinSet::new(), dir }
    }

    /// A process that runs a shell script; `$D` is the directory of the test.
    fn start(&mut self, name: &str, stage: Stage, script: &str) {
        let script = format!("D={}; {script}", self.dir.path().display());
        self.table.add(name);
        let member = Member {
            name: name.into(),
            program: "/bin/sh".into(),
            arguments: vec![OsString::from("-c"), script.into()],
            stage,
            foundation: false,
            hint: None,
        };
        let keeper = Keeper::new(member, self.table.clone(), Say::new(), self.orders.clone());
        self.keepers.spawn(keeper.keep());
    }

    fn process(&self, name: &str) -> aits_orders::Process {
        self.table.list().processes.into_iter().find(|process| process.name == name).unwrap()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // A watchdog against hanging, not a promise.
        let in_time = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(in_time.is_ok(), "waited in vain until {what}: {:?}", self.table.list());
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    async fn all_ended(&mut self) {
        while self.keepers.join_next().await.is_some() {}
    }
}

fn alive(pid: u32) -> bool {
    rustix::process::test_kill_process(kernel_pid(Some(pid)).unwrap()).is_ok()
}

#[tokio::test]
async fn a_killed_process_is_started_again_and_the_list_tells() {
    let mut house = House::new();
    house.start("a", 0, "exec sleep 100");
    house.until("it runs", |house| house.process("a").pid.is_some()).await;
    let first = house.process("a");
    kill_process(kernel_pid(first.pid).unwrap(), Signal::KILL).unwrap();
    house.until("it runs again", |house| house.process("a").restarts == 1).await;
    let second = house.process("a");
    assert_ne!(second.pid, first.pid);
    assert_eq!(
        (second.state, second.last_exit.as_deref()),
        (ProcessState::Running, Some("killed by SIGKILL"))
    );
    house.orders.end(0);
    house.all_ended().await;
    assert!(!alive(second.pid.unwrap()));
}

#[tokio::test]
async fn a_crash_loop_is_not_given_up() {
    let mut house = House::new();
    house.start("a", 0, "echo x >> $D/lives; exit 1");
    house.until("it has had four lives", |house| house.read("lives").lines().count() >= 4).await;
    assert_eq!(house.failed.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
    house.orders.end(0);
    house.all_ended().await;
}

#[tokio::test]
async fn what_cannot_work_in_its_first_life_ends_everything_with_its_sentence() {
    let mut house = House::new();
    house.start("a", 0, "echo 'noise' >&2; echo 'a: the model is no model' >&2; exit 78");
    let error = house.failed.recv().await.unwrap();
    assert_eq!(error.message(), "a cannot start: the model is no model");
    assert_eq!(error.class(), ExitClass::Config);
    house.all_ended().await;
    assert_eq!(house.process("a").state, ProcessState::Failed);
}

#[tokio::test]
async fn what_worked_before_is_given_up_only_after_some_tries_and_alone() {
    let mut house = House::new();
    house.start("a", 0, "echo x >> $D/lives; [ $(wc -l < $D/lives) = 1 ] && exit 1; exit 78");
    house.until("it has failed", |house| house.process("a").state == ProcessState::Failed).await;
    house.all_ended().await;
    assert_eq!(house.read("lives").lines().count() as u32, STRIKES_MAX + 2);
    assert_eq!(house.failed.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
}

#[tokio::test]
async fn stages_end_one_after_the_other() {
    let mut house = House::new();
    for (name, stage) in [("memory", 2), ("work", 1), ("door", 0)] {
        house.start(name, stage, &format!("trap 'echo {name} >> $D/order; exit 0' TERM; echo x > $D/{name}; while :; do sleep 0.01; done"));
    }
    house
        .until("all are ready", |house| {
            ["memory", "work", "door"].iter().all(|name| !house.read(name).is_empty())
        })
        .await;
    for stage in 0..STAGES {
        house.orders.end(stage);
        assert_eq!(house.keepers.join_next().await.unwrap().unwrap(), stage);
    }
    assert_eq!(house.read("order"), "door\nwork\nmemory\n");
}

#[tokio::test]
async fn who_does_not_listen_is_killed_with_its_children() {
    let mut house = House::new();
    house.start(
        "deaf",
        0,
        "trap '' TERM; (trap '' TERM; exec sleep 100) & echo $! > $D/child; wait; sleep 100",
    );
    house.until("it has a child", |house| house.read("child").ends_with('\n')).await;
    let child: u32 = house.read("child").trim().parse().unwrap();
    house.orders.end(0);
    assert!(alive(child) && house.table.alive(0));
    house.orders.kill(0);
    house.all_ended().await;
    house.until("the child is gone", |_| !alive(child) || zombie(child)).await;
}

/// An orphan whose new parent has not looked yet.
fn zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn with_another_memory_everybody_begins_anew_and_with_the_same_one_nobody() {
    let mut house = House::new();
    house.start("work", 1, "echo x >> $D/lives; exec sleep 100");
    house.until("it runs", |house| house.read("lives") == "x\n").await;
    let first = house.process("work").pid;
    // Its processes were killed, in whatever order, and the pool lived on.
    for seen in [None, Some(1), None, Some(1)] {
        house.orders.memory_is(seen);
        tokio::task::yield_now().await;
    }
    assert_eq!(house.process("work").pid, first);
    house.orders.memory_is(None);
    house.orders.memory_is(Some(2));
    house.until("it runs again", |house| house.read("lives") == "x\nx\n").await;
    house.until("the list tells", |house| house.process("work").restarts == 1).await;
    assert_ne!(house.process("work").pid, first);
    house.orders.kill_all();
    house.all_ended().await;
}

#[tokio::test]
async fn who_stands_on_the_memory_waits_for_it() {
    let mut house = House::new();
    house.orders.memory_is(None);
    house.start("work", 1, "echo x >> $D/lives; exec sleep 100");
    tokio::task::yield_now().await;
    assert_eq!(house.process("work").pid, None);
    house.orders.memory_is(Some(7));
    house.until("it runs", |house| house.read("lives") == "x\n").await;
    house.orders.kill_all();
    house.all_ended().await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_tried_again() {
    let mut house = House::new();
    house.table.add("a");
    let member = Member {
        name: "a".into(),
        program: "/nonexistent/program".into(),
        arguments: vec![],
        stage: 0,
        foundation: false,
        hint: None,
    };
    house.keepers.spawn(Keeper::new(member, house.table.clone(), Say::new(), house.orders.clone()).keep());
    house.until("it is told", |house| house.process("a").last_exit.is_some()).await;
    assert!(house.process("a").last_exit.unwrap().starts_with("cannot be started"));
    house.orders.end(0);
    house.all_ended().await;
}

#[tokio::test]
async fn lines_are_cut_and_damaged_text_is_passed_on() {
    let mut long = vec![b'x'; LINE_MAX + 10];
    long.extend_from_slice(b"\n\nb\xffd\nlast");
    let mut seen = Vec::new();
    lines(long.as_slice(), |line| seen.push(line.to_owned())).await;
    assert_eq!(seen.last().unwrap(), "last");
    assert!(seen.contains(&"b\u{fffd}d".to_owned()));
    assert!(seen.iter().all(|line| line.len() <= LINE_MAX + 8192));
}
