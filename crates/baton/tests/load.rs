//! `baton load` against a real server of many processes: what it says, and its exit codes.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{baton, text};
use serde_json::Value;

/// The example server of the rpc crate; ends with the test.
struct Pingpong {
    child: Child,
    uri: String,
}

impl Pingpong {
    fn start(listen: &str, workers: &str) -> Self {
        let rpc = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("rpc");
        let program = baton_testkit::example(rpc.to_str().unwrap(), "pingpong");
        let mut child = Command::new(program)
            .args(["--listen", listen, "--workers", workers])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let uri = line.trim().strip_prefix("listening at ").unwrap().to_owned();
        Self { child, uri }
    }
}

impl Drop for Pingpong {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_server_that_does_its_work_passes() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("un://{}", dir.path().join("s").display());
    for listen in ["ip://127.0.0.1:0", &unix] {
        let server = Pingpong::start(listen, "2");
        let run =
            baton(&["load", &server.uri, "-c", "8", "-d", "4", "-n", "400", "--size", "1000", "--json"]);
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        let found = json(&run);
        assert_eq!((&found["requests"]["right"], &found["links"]["made"]), (&400.into(), &8.into()));
        assert!(found["latency"]["p50_us"].as_f64().unwrap() > 0.0);

        let run = baton(&["load", &server.uri, "-c", "8", "-n", "80", "--whoami", "--json"]);
        let spread = &json(&run)["spread"];
        let connections: Vec<_> = spread["connections"].as_object().unwrap().values().collect();
        assert_eq!(connections, [4, 4], "{spread}");
        assert_eq!(spread["connections_variation"], 0.0);

        let run =
            baton(&["load", &server.uri, "-n", "10", "-m", "burn", "-p", r#"{"us": 1}"#, "--expect", "2"]);
        assert_eq!(run.status.code(), Some(3));
        assert!(text(&run.stdout).contains("10 sent: 0 right, 0 refused, 10 wrong"), "{}", text(&run.stdout));
        let run = baton(&["load", &server.uri, "-n", "10", "-m", "nothing"]);
        assert!(text(&run.stdout).contains("10 times error `unknown_method`"), "{}", text(&run.stdout));
    }
}

#[test]
fn refusals_of_load_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("un://{}", dir.path().join("none").display());
    let cases: [(&[&str], i32, &str); 5] = [
        (&["load", &nobody], 1, "is the server running?"),
        (&["load", "127.0.0.1:7000"], 2, "un://PATH"),
        (&["load", &nobody, "-c", "0"], 2, "1 to 1000000"),
        (&["load", &nobody, "--hot", "110:5"], 2, "10:90"),
        (&["load", &nobody, "-p", "{us"], 2, "quote them for the shell"),
    ];
    for (args, code, says) in cases {
        let output = baton(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}
