//! What a person sees of a working pool: `ls --held-by`, `inspect`, `trace`, `top`. Against a real daemon, with members
//! in this process.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use aits_frame::{HEADER_LEN, Header, Micros, PictureLayout, Sequence, StreamId};
use baton_client::{Block, Client, ConnectOptions, Inbox};
use common::{Daemon, WATCHDOG, baton, command, said, text, until, uri_in};
use serde_json::Value;

/// Bytes: too large a part of the pool for anybody to keep such a block as a spare one.
const LARGE: usize = 150_000;

/// A daemon, somebody who sends and somebody who receives.
struct Stage {
    _daemon: Daemon,
    uri: String,
    sender: Client,
    receiver: Inbox,
    _sender_inbox: Inbox,
    dir: tempfile::TempDir,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let uri = uri_in(dir.path());
    let daemon = Daemon::start(&uri);
    let connect = |options: ConnectOptions| Client::connect(&uri, options.timeout(WATCHDOG)).unwrap();
    let (sender, sender_inbox) = connect(ConnectOptions::new("camera"));
    let (_, receiver) = connect(ConnectOptions::new("judge").inbox("judge.frames"));
    Stage { _daemon: daemon, sender, receiver, _sender_inbox: sender_inbox, dir, uri }
}

impl Stage {
    fn said(&self, args: &[&str]) -> String {
        said(&[args, &["--connect", &self.uri]].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.said(&[args, &["--json"]].concat())).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = baton(&[args, &["--connect", &self.uri]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        text(&output.stderr)
    }

    /// Grey ramps of 401×299 pixels, no colour; too large for a magazine of spare blocks.
    fn frame(&self) -> Block {
        let layout = PictureLayout::tight(401, 299);
        let header = Header {
            stream: StreamId(7),
            sequence: Sequence(42),
            pts: Micros(1_680_000),
            decoded_at: Micros::monotonic_now(),
            payload_len: layout.payload_len(),
            annotated: false,
            layout: Some(layout),
        };
        let mut block = self.sender.alloc(HEADER_LEN + layout.payload_len() as usize).unwrap();
        block.fill(128);
        for y in 0..299 {
            let at = HEADER_LEN + y * layout.strides[0] as usize;
            for (x, luma) in block[at..at + 401].iter_mut().enumerate() {
                *luma = (16 + (x + y) % 200) as u8;
            }
        }
        header.write_to(&mut block).unwrap();
        block.freeze()
    }
}

/// A program that goes on, its lines as they come; killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
        let (tx, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        Self { child, lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(WATCHDOG).expect("a line within the time of the watchdog")
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        until("the end of the program", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lanes(line: &Value) -> Vec<(u64, bool)> {
    let holders = line["holders"].as_array().unwrap();
    holders.iter().map(|h| (h["endpoint"].as_u64().unwrap(), h["inbox"].as_bool().unwrap())).collect()
}

#[test]
fn ls_tells_which_blocks_a_member_holds_and_which_wait_for_it() {
    let mut stage = stage();
    assert_eq!(stage.said(&["ls", "--held-by", "judge"]), "no blocks\n");
    let (mut kept, mut sent) = (stage.sender.alloc(LARGE).unwrap(), stage.sender.alloc(200_000).unwrap());
    (kept[0], sent[0]) = (1, 2);
    let (kept, sent) = (kept.freeze(), sent.freeze());
    let (kept_id, sent_id) = (u64::from(kept.id().get()), u64::from(sent.id().get()));
    stage.sender.sender("judge.frames").unwrap().send(sent.clone()).unwrap();

    let held = stage.json(&["ls", "--held-by", "camera"]);
    let ids: Vec<_> =
        held["blocks"].as_array().unwrap().iter().map(|b| b["block"].as_u64().unwrap()).collect();
    let mut expected = vec![kept_id, sent_id];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let pid = std::process::id().to_string();
    assert_eq!(stage.json(&["ls", "--held-by", &pid])["blocks"], held["blocks"], "both are in this process");

    let unread = stage.json(&["ls", "--held-by", "2"]);
    assert_eq!(unread["members"][0]["name"], "judge");
    let blocks = unread["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 1);
    assert_eq!((&blocks[0]["block"], &blocks[0]["len"]), (&sent_id.into(), &200_000.into()));
    assert_eq!(lanes(&blocks[0]), [(1, false), (2, true)]);
    let row = stage.said(&["ls", "--held-by", "judge"]);
    assert!(row.lines().nth(1).unwrap().ends_with("  1 camera  2 judge"), "{row}");

    drop((kept, sent));
    let delivery = stage.receiver.recv(Some(WATCHDOG)).unwrap().unwrap();
    assert_eq!(delivery.block[0], 2);
    drop(delivery);
    assert_eq!(stage.said(&["ls", "--held-by", "judge"]), "no blocks\n");
    assert!(stage.refused(&["ls", "--held-by", "nobody"]).contains("`baton ls` lists who is there"));
}

#[test]
fn inspect_writes_the_frame_as_a_picture_and_leaves_no_trace() {
    let mut stage = stage();
    let frame = stage.frame();
    let (number, before) = (frame.id().get().to_string(), frame.to_vec());
    stage.sender.sender("judge.frames").unwrap().send(frame).unwrap();

    // It waits in an inbox: its only hold is the message.
    let png = stage.dir.path().join("frame.png");
    let shown = stage.said(&["inspect", &number, "--png", png.to_str().unwrap(), "--hex", "16"]);
    assert!(shown.contains("waits in the inbox of 2 judge"), "{shown}");
    assert!(
        shown
            .contains("picture of 401x299 pixels, I420, limited range\nstream 7, frame 42, shown at 1.680 s"),
        "{shown}"
    );
    assert!(shown.contains("00000000  41 49 54 46 "), "{shown}");
    let mut reader =
        png::Decoder::new(BufReader::new(std::fs::File::open(&png).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (401, 299, png::ColorType::Rgb));
    for (at, pixel) in pixels.chunks_exact(3).enumerate() {
        let luma = ((at % 401 + at / 401) % 200) as f32; // above black
        let grey = (luma * 255.0 / 219.0).round() as u8;
        assert_eq!(pixel, [grey; 3], "pixel {at}");
    }
    let piped = baton(&["inspect", &number, "--png", "-", "--connect", &stage.uri]);
    assert_eq!(piped.stdout, std::fs::read(&png).unwrap());
    assert!(text(&piped.stderr).contains("picture of 401x299"));
    let raw = baton(&["inspect", &number, "--raw", "-", "--connect", &stage.uri]);
    assert_eq!(raw.stdout, before);
    let json = stage.json(&["inspect", &number]);
    assert_eq!(
        (&json["frame"]["width"], &json["frame"]["sequence"], &json["names"]["2"]),
        (&401.into(), &42.into(), &"judge".into())
    );

    // Nobody but its receiver has it, and it arrives as it was.
    assert_eq!(lanes(&stage.json(&["ls", "--held-by", "judge"])["blocks"][0]), [(2, true)]);
    let delivery = stage.receiver.recv(Some(WATCHDOG)).unwrap().unwrap();
    assert_eq!(*delivery.block, before);
    drop(delivery);

    let free = stage.refused(&["inspect", &number]);
    assert!(free.contains("is free") && free.contains("`baton ls --held-by MEMBER`"), "{free}");
    let nonsense = stage.refused(&["inspect", "16777215"]);
    assert!(nonsense.contains("no block 16777215"), "{nonsense}");
    let members = stage.json(&["ls"]);
    assert_eq!(members["members"].as_array().unwrap().len(), 2, "the tools have left");
    assert_eq!(stage.json(&["audit"])["ok"], true);
}

#[test]
fn inspect_says_that_a_block_is_no_picture() {
    let stage = stage();
    let mut block = stage.sender.alloc(LARGE).unwrap();
    block.fill(b'x');
    let number = block.id().get().to_string();
    // Not frozen, in nobody else's hands: it can be looked at, and stays writable.
    let shown = stage.said(&["inspect", &number]);
    assert!(shown.contains("held by 1 camera\n") && shown.contains("may still be written to"), "{shown}");
    assert!(shown.contains("no frame: the block does not begin with a frame header"), "{shown}");
    block[0] = b'y';
    let png = stage.dir.path().join("none.png");
    let output = baton(&["inspect", &number, "--png", png.to_str().unwrap(), "--connect", &stage.uri]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--hex N"), "{}", text(&output.stderr));
    assert!(!png.exists(), "no empty file is left");
    drop(block);
    assert_eq!(stage.json(&["audit"])["held"], 0);
}

#[test]
fn trace_follows_a_block_from_hand_to_hand() {
    let mut stage = stage();
    let block = stage.sender.alloc(LARGE).unwrap();
    let number = block.id().get();
    let trace = Running::start(&["trace", &number.to_string(), "-n", "4", "--json", "--connect", &stage.uri]);
    let first = trace.json();
    assert_eq!((lanes(&first), &first["names"]["1"]), (vec![(1, false)], &"camera".into()));
    stage.sender.sender("judge.frames").unwrap().send(block.freeze()).unwrap();
    assert_eq!(lanes(&trace.json()), [(2, true)]);
    let delivery = stage.receiver.recv(Some(WATCHDOG)).unwrap().unwrap();
    let third = trace.json();
    assert_eq!((lanes(&third), &third["generation"]), (vec![(2, false)], &first["generation"]));
    drop(delivery);
    let last = trace.json();
    assert_eq!((lanes(&last), &last["free"]), (vec![], &true.into()));
    let mut trace = trace;
    assert_eq!(trace.ended(), Some(0));
}

#[test]
fn trace_follows_what_arrives_in_an_inbox() {
    let mut stage = stage();
    let trace = Running::start(&["trace", "--inbox", "judge.frames", "-n", "6", "--connect", &stage.uri]);
    for _ in 0..2 {
        let block = stage.sender.alloc(LARGE).unwrap();
        let number = format!("block {} ", block.id());
        stage.sender.sender("judge.frames").unwrap().send(block.freeze()).unwrap();
        let line = trace.line();
        assert!(line.contains(&number) && line.ends_with("unread by 2 judge"), "{line}");
        let delivery = stage.receiver.recv(Some(WATCHDOG)).unwrap().unwrap();
        let line = trace.line();
        assert!(line.contains(&number) && line.ends_with("held by 2 judge"), "{line}");
        drop(delivery);
        let line = trace.line();
        assert!(line.contains(&number) && line.ends_with("free"), "{line}");
    }
    let mut trace = trace;
    assert_eq!(trace.ended(), Some(0));
    assert!(stage.refused(&["trace", "--inbox", "nobody"]).contains("nobody receives at inbox `nobody`"));
    let nothing = stage.said(&["trace", "--inbox", "judge.frames", "--for", "100ms"]);
    assert_eq!(nothing, "");
}

#[test]
fn a_trace_ends_with_the_pool() {
    let mut stage = stage();
    let block = stage.sender.alloc(LARGE).unwrap();
    let mut trace = Running::start(&["trace", &block.id().get().to_string(), "--connect", &stage.uri]);
    trace.line();
    assert_eq!(stage._daemon.stop(), Some(0));
    assert_eq!(trace.ended(), Some(1));
}

#[test]
fn top_knows_how_long_a_block_is_held_and_that_the_daemon_was_restarted() {
    let stage = stage();
    let block = stage.sender.alloc(LARGE).unwrap();
    let top = Running::start(&["top", "-i", "50ms", "--json", "--connect", &stage.uri]);
    let oldest = |sample: &Value| sample["members"][0]["oldest_ms"].as_u64();
    assert_eq!(oldest(&top.json()), Some(0));
    let later = loop {
        match oldest(&top.json()) {
            Some(age) if age > 0 => break age,
            Some(_) => {}
            None => panic!("it is held all the time"),
        }
    };
    stage._daemon.kill_serving();
    let told = loop {
        let sample = top.json();
        if let Some(note) = sample["note"].as_str() {
            break (note.to_owned(), oldest(&sample));
        }
    };
    assert!(told.0.contains("restarted and has adopted the pool"), "{told:?}");
    assert!(told.1.is_some_and(|age| age > later), "the age goes on: {told:?}");
    drop(block);
    until("nothing to be held", || oldest(&top.json()).is_none().then_some(()));
}

#[test]
fn top_in_batch_mode_is_plain_text() {
    let stage = stage();
    let _block = stage.sender.alloc(LARGE).unwrap();
    let out = stage.said(&["top", "--batch", "-n", "2", "-i", "50ms"]);
    assert!(!out.contains('\x1b'), "no control sequences: {out:?}");
    assert_eq!(out.matches("2 members, adopted 0 times, 0 deaths\n").count(), 2, "{out}");
    let rows: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..6], ["ID", "PID", "NAME", "KIND", "STATE", "HELD"]);
    assert_eq!(rows[2][2..6], ["camera", "attached", "ok", "1"]);
    let piped = baton(&["top", "--connect", &stage.uri]);
    assert_eq!(piped.status.code(), Some(2));
    assert!(text(&piped.stderr).contains("--batch"));
}
#[test]
fn top_counts_what_flows() {
    let mut stage = stage();
    let way = stage.sender.sender("judge.frames").unwrap();
    let mut top = Running::start(&["top", "-n", "2", "-i", "50ms", "--json", "--connect", &stage.uri]);
    let first = top.json();
    assert_eq!((&first["interval_ms"], &first["members"][0]["out_per_s"]), (&Value::Null, &Value::Null));
    // Until the second sample is taken, messages flow.
    let second = loop {
        way.send(stage.sender.alloc(LARGE).unwrap().freeze()).unwrap();
        drop(stage.receiver.recv(Some(WATCHDOG)).unwrap().unwrap());
        match top.lines.recv_timeout(Duration::from_millis(1)) {
            Ok(line) => break serde_json::from_str::<Value>(&line).unwrap(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(top.ended(), Some(0));
    let (camera, judge) = (&second["members"][0], &second["members"][1]);
    assert_eq!((&camera["name"], &judge["name"]), (&"camera".into(), &"judge".into()));
    assert!(camera["sent"].as_u64().unwrap() > 0, "{camera}");
    assert!(camera["out_per_s"].as_f64().unwrap() > 0.0, "{camera}");
    assert!(judge["in_per_s"].as_f64().unwrap() > 0.0, "{judge}");
    assert_eq!(second["pool"]["adoptions"], 0);
}
