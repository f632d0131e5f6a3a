//! What people see at the keyboard: help, refusals, exit codes. Nothing here needs a model or a video.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A call of `aits` in an environment that holds nothing of the caller's.
fn aits(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aits"))
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit code, and what was written to stdout and stderr.
fn seen(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn file(home: &Path, name: &str, text: &str) -> String {
    let path = home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path.display().to_string()
}

/// A cache that looks as after set-up; nothing in it works.
fn cache(home: &Path) {
    file(home, ".cache/aits/models/nanodet.onnx", "no model");
    file(home, ".cache/aits/runtime/libonnxruntime.so", "no library");
}

#[test]
fn help_teaches_and_documents_the_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let (code, help, _) = seen(&aits(home.path(), &["--help"]));
    assert_eq!(code, Some(0));
    for part in ["aits up road.mp4 --loop", "Exit codes:", "78", "gateway", "never copied between processes"]
    {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
    for command in
        ["up", "ps", "audit", "check", "config", "rmmt", "vas", "vss", "wmits", "preview", "gateway"]
    {
        let (code, help, _) = seen(&aits(home.path(), &[command, "--help"]));
        assert_eq!(code, Some(0), "{command}");
        assert!(help.contains(&format!("aits {command}")), "{help}");
    }
}

#[test]
fn a_wrong_call_is_exit_code_2() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["upp"][..],
        &["up", "--vss", "0"],
        &["up", "--pool-size", "much"],
        &["up", "--listen", "here"],
        &["up", "--listen", "127.0.0.1:0"],
        &["vas"],
    ] {
        let (code, _, error) = seen(&aits(home.path(), arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
    }
    cache(home.path());
    let (code, _, error) = seen(&aits(home.path(), &["up", "nowhere.mp4"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.starts_with("aits up: nowhere.mp4 cannot be read"), "{error}");
}

#[test]
fn a_typo_in_the_config_is_shown_with_a_caret() {
    let home = tempfile::tempdir().unwrap();
    file(home.path(), "aits.toml", "listen = \"127.0.0.1:8080\"\n\n[pool]\nsise = \"512MiB\"\n");
    let expected = "\
aits.toml:4:1: unknown field `sise`, expected `size` or `max_block`
  |
4 | sise = \"512MiB\"
  | ^^^^ did you mean `size`?
";
    for (command, arguments) in
        [("check", &["check", "-t", "aits.toml"][..]), ("up", &["up", "--config", "aits.toml"])]
    {
        let (code, out, error) = seen(&aits(home.path(), arguments));
        assert_eq!((code, out.as_str()), (Some(78), ""), "{error}");
        assert_eq!(error, format!("aits {command}: {expected}"));
    }
}

#[test]
fn the_default_config_passes_the_check() {
    let home = tempfile::tempdir().unwrap();
    cache(home.path());
    let (code, config, _) = seen(&aits(home.path(), &["config", "default"]));
    assert_eq!(code, Some(0));
    file(home.path(), "aits.toml", &config);
    assert_eq!(
        seen(&aits(home.path(), &["check"])),
        (Some(0), "aits.toml: good, 0 tasks\n".into(), String::new())
    );
}

#[test]
fn a_missing_model_names_the_set_up() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, error) = seen(&aits(home.path(), &["up"]));
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(error.starts_with("aits up: there is no model in "), "{error}");
    assert!(error.contains("cargo xtask setup") && error.lines().count() == 1, "{error}");
    cache(home.path());
    let (code, _, error) = seen(&aits(home.path(), &["up", "--model", "other.onnx"]));
    assert_eq!(code, Some(78));
    assert!(error.contains("other.onnx cannot be read"), "{error}");
}

#[test]
fn a_system_that_is_not_there_is_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run").display().to_string();
    let (code, out, error) = seen(&aits(home.path(), &["ps", "--run", &run]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("start one with `aits up`"), "{error}");
}

/// The processes really start here; the gateway finds its port taken and everything ends.
#[test]
fn a_port_in_use_ends_everything_with_one_sentence() {
    let home = tempfile::tempdir().unwrap();
    cache(home.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = home.path().join("run");
    let arguments = ["up", "--pool-size", "64MiB", "--listen", &address, "--run", run.to_str().unwrap()];
    let (code, out, error) = seen(&aits(home.path(), &arguments));
    // Which of two things that cannot work is seen first is not ours to say: the library is no library either.
    assert_eq!(code, Some(78), "{out}\n{error}");
    let last = error.lines().last().unwrap();
    assert!(
        last.starts_with("aits up: gateway cannot start: ")
            || last.starts_with("aits up: vss-0 cannot start: "),
        "{error}"
    );
    assert!(!run.exists(), "nothing is left");
}

#[test]
fn a_pool_larger_than_the_machine_ends_with_the_numbers() {
    let home = tempfile::tempdir().unwrap();
    cache(home.path());
    let run = home.path().join("run");
    let arguments =
        ["up", "--pool-size", "900GiB", "--listen", "127.0.0.1:8080", "--run", run.to_str().unwrap()];
    let (code, out, error) = seen(&aits(home.path(), &arguments));
    assert_eq!(code, Some(78), "{out}\n{error}");
    let last = error.lines().last().unwrap();
    assert!(last.contains("--pool-size is 900GiB"), "{error}");
    assert!(last.starts_with("aits up: rmmt cannot start: ") && last.contains("available"), "{error}");
    assert!(!run.exists(), "nothing is left");
}
