//! The command line as people and scripts see it: what it prints, and its exit codes.

mod common;

use baton_client::{Client, ConnectOptions, Observer};
use common::{Daemon, WATCHDOG, baton, command, text, uri_in};

#[test]
fn a_session_at_the_keyboard() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let mut daemon = Daemon::start(&uri);
    let empty = baton(&["ls", "--connect", &uri]);
    assert_eq!((empty.status.code(), text(&empty.stdout).as_str()), (Some(0), "nobody is attached\n"));

    let (client, _inbox) = Client::connect(&uri, ConnectOptions::new("me").inbox("me.in")).unwrap();
    let _block = client.alloc(100_000).unwrap();
    let listing = text(&baton(&["ls", "--connect", &uri]).stdout);
    let rows: Vec<Vec<_>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "NAME", "INBOX", "KIND", "STATE", "HELD", "BYTES", "QUOTA", "QUEUED"]);
    let pid = std::process::id().to_string();
    assert_eq!(rows[1][..7], ["1", &pid, "me", "me.in", "attached", "ok", "1"]);

    let json = baton(&["ls", "--json", "--connect", &uri]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["members"][0]["blocks_held"], 1);
    assert_eq!(json["inboxes"][0]["inbox"], "me.in");

    let audit = baton(&["audit", "--connect", &uri]);
    assert_eq!(audit.status.code(), Some(0));
    assert!(text(&audit.stdout).starts_with("balanced: "));
    let audit = baton(&["audit", "--json", "--connect", &uri]);
    let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((&audit["ok"], &audit["held"]), (&true.into(), &1.into()));

    let info = text(&baton(&["info", "--connect", &uri]).stdout);
    assert!(info.contains("in 1 blocks; largest block 8.0 MiB"), "{info}");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!dir.path().join("rmmt.sock").exists());
}

#[test]
fn refusals_say_what_to_do_and_have_their_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let nowhere = format!("un://{}", dir.path().join("no/such/dir/s").display());
    let cases: [(&[&str], i32, &str); 10] = [
        (&["ls"], 2, "--connect"),
        (&["ls", "--connect", "nonsense"], 2, "un://PATH"),
        (&["ls", "--connect", &uri], 1, "baton rmmt --listen"),
        (&["rmmt", "--listen", &uri, "--size", "lots"], 2, "512MiB"),
        (&["rmmt", "--listen", "ip://127.0.0.1:1"], 78, "un://PATH"),
        (&["rmmt", "--listen", &uri, "--listen", "ip://0.0.0.0:0"], 78, "--allow-remote"),
        (
            &["rmmt", "--listen", &uri, "--size", "900GiB"],
            78,
            "900 GiB (966367641600 bytes) of shared memory are needed",
        ),
        (&["rmmt", "--listen", &uri, "--size", "900GiB"], 78, "are available"),
        (&["rmmt", "--listen", &uri, "--members-max", "4000"], 78, "2047"),
        (&["rmmt", "--listen", &nowhere], 78, "no/such/dir"),
    ];
    for (args, code, says) in cases {
        let output = baton(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_plain_log_carries_no_time_and_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let logged = |plain: &[&str]| {
        let log = dir.path().join("log");
        let mut command = command(&["rmmt", "--listen", &uri, "--size", "8MiB"]);
        command.args(plain);
        let mut daemon = Daemon(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
        Observer::connect(&uri, WATCHDOG).unwrap().pool().unwrap();
        assert_eq!(daemon.stop(), Some(0));
        std::fs::read_to_string(log).unwrap()
    };
    let plain = logged(&["--log-plain"]);
    assert_eq!(plain.lines().next().unwrap().trim(), format!("INFO rmmt: 8 MiB ready at {uri}"));
    let timed = logged(&[]);
    assert!(timed.starts_with("20") && timed.contains("INFO rmmt: 8 MiB ready"), "{timed}");
}

#[test]
fn the_help_teaches() {
    let help = text(&baton(&["--help"]).stdout);
    for word in
        ["rmmt", "top", "ls", "inspect", "trace", "audit", "info", "Exit codes: 0 ok, 1 failed", "un:///"]
    {
        assert!(help.contains(word), "{word}");
    }
    assert!(text(&baton(&["rmmt", "--help"]).stdout).contains("keeper"));
    assert!(text(&baton(&["trace", "--help"]).stdout).contains("may be missed"));
    let script = text(&baton(&["completions", "bash"]).stdout);
    assert!(script.contains("--held-by"), "{script}");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(baton(&["man", dir.path().to_str().unwrap()]).status.code(), Some(0));
    let page = std::fs::read_to_string(dir.path().join("baton-inspect.1")).unwrap();
    assert!(page.contains("PNG"), "{page}");
}
