//! Bad input: one clear sentence each, and nothing else is disturbed.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use aits_orders::{Task, TaskState};
use baton_tests::{Options, System, cache_dir, free_address, program, signal, wait_until};
use serde_json::json;

const WATCHDOG: Duration = Duration::from_secs(60);

fn clip() -> std::path::PathBuf {
    cache_dir().join("clips/road-cars-truck.mp4")
}

/// Starts a task and waits until it has failed; returns the sentence.
fn failure_of(system: &System, id: &str, url: &str) -> String {
    let (status, answer) =
        system.post("/api/tasks", &json!({"id": id, "url": url})).expect("the door answers");
    assert_eq!(status, 201, "{answer}");
    wait_until("the task has failed", WATCHDOG, || {
        let task: Task = serde_json::from_value(system.json(&format!("/api/tasks/{id}"))?).ok()?;
        (task.state == TaskState::Failed).then_some(task.reason)?
    })
}

#[test]
fn a_bad_source_fails_alone_and_says_why() {
    let files = tempfile::tempdir().unwrap();
    let text = files.path().join("text.mp4");
    std::fs::write(&text, "this is a shopping list, not a video\n".repeat(200)).unwrap();
    let whole = std::fs::read(clip()).unwrap();
    let headless = files.path().join("headless.mp4");
    std::fs::write(&headless, &whole[..whole.len() / 3]).unwrap();
    let missing = files.path().join("missing.mp4");
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

    let system = System::start(&Options::looped(clip()));
    let result = |system: &System| {
        let tasks = system.tasks()?;
        tasks.first()?.result.as_ref().map(|result| result.sequence.0)
    };
    let begin = wait_until("the good task has results", WATCHDOG, || result(&system));

    let cases = [
        ("missing", missing.display().to_string(), "missing.mp4"),
        ("text", text.display().to_string(), "text.mp4"),
        ("headless", headless.display().to_string(), "headless.mp4"),
        ("rtsp", format!("rtsp://user:secret@127.0.0.1:{port}/cam"), "127.0.0.1"),
    ];
    for (id, url, names) in &cases {
        let sentence = failure_of(&system, id, url);
        eprintln!("{id}: {sentence}");
        assert!(sentence.contains(names), "the sentence names the source: {sentence}");
        assert!(sentence.len() < 400 && !sentence.contains('\n'), "one sentence: {sentence}");
        assert!(!sentence.contains("secret"), "a password is nobody's business: {sentence}");
    }
    assert!(!system.output().contains("secret"), "nor is it the log's");
    let tasks = system.tasks().unwrap();
    assert!(tasks.iter().all(|task| !task.url.contains("secret")), "nor the API's");
    assert_eq!(tasks[0].state, TaskState::Running, "the good task goes on");
    wait_until("the good task has new results", WATCHDOG, || result(&system).filter(|now| *now > begin));
    assert_eq!(system.delete("/api/tasks/text"), Some(204));
    assert_eq!(system.tasks().unwrap().len(), cases.len());
}

fn up(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("aits"));
    command.arg("up").arg("--run").arg(home.path().join("run")).arg("--data").arg(home.path().join("data"));
    command.args(arguments).env("AITS_CACHE", cache_dir()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let waiter = std::thread::spawn(move || child.wait_with_output().unwrap());
    let begin = std::time::Instant::now();
    while !waiter.is_finished() && begin.elapsed() < WATCHDOG {
        std::thread::sleep(Duration::from_millis(20));
    }
    if !waiter.is_finished() {
        signal(pid, rustix::process::Signal::KILL);
        let output = waiter.join().unwrap();
        panic!("a start that cannot succeed goes on: {}", String::from_utf8_lossy(&output.stdout));
    }
    waiter.join().unwrap()
}

#[track_caller]
fn refuses(arguments: &[&str], code: &[i32], says: &[&str]) {
    let output = up(arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("aits up {}: {}\n{text}", arguments.join(" "), output.status);
    assert!(
        output.status.code().is_some_and(|c| code.contains(&c)),
        "exit code of {:?}: {text}",
        output.status
    );
    for part in says {
        assert!(text.contains(part), "the message names `{part}`: {text}");
    }
}

#[test]
fn a_model_that_is_none_is_refused_at_start() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("cat.onnx");
    std::fs::write(&path, b"meow").unwrap();
    let path = path.to_str().unwrap();
    refuses(&["--listen", &free_address(), "--model", path], &[78], &["cat.onnx", "ONNX"]);
}

#[test]
fn a_port_in_use_is_refused_at_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&["--listen", &address], &[1, 78], &[&address, "in use"]);
}

#[test]
fn a_pool_larger_than_the_machine_is_refused_with_the_numbers() {
    refuses(&["--listen", &free_address(), "--pool-size", "900GiB"], &[1, 78], &["900", "available"]);
}

#[test]
fn a_typo_in_the_config_is_shown_with_its_place() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("aits.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:8080\"\n\n[pool]\nsise = \"512MiB\"\n").unwrap();
    refuses(&["--config", path.to_str().unwrap()], &[78], &["aits.toml:4", "sise", "^"]);
}
