//! The protocol as a stranger sees it, over TCP and over Unix sockets, against a server of two worker processes.
//!
//! After each case the connections of eight bystanders still work, master and workers are the same processes, and none of
//! them holds a descriptor more than before.

mod common;

use common::{Pingpong, Raw, Transport, descriptors, frame, request, until};
use serde_json::{Value, json};

/// Runs one case against both transports.
fn both(case: impl Fn(&Pingpong)) {
    for transport in [Transport::Tcp, Transport::Unix] {
        let server = Pingpong::start(transport, 2);
        let mut bystanders = server.one_per_worker(8);
        let [first, second] = [bystanders[0].1, bystanders[1].1];
        assert_ne!(first, second, "{transport:?}: two connections, two workers");
        let processes = [server.child.id(), first, second];
        // The master closes its copy of a connection when it hears that a worker has it, a little later.
        let before = until("the master's copies to be closed", || {
            let held = processes.map(descriptors);
            std::thread::sleep(std::time::Duration::from_millis(5));
            (held == processes.map(descriptors) && held[1] == held[2]).then_some(held)
        });
        case(&server);
        for (bystander, pid) in &mut bystanders {
            assert_eq!(bystander.whoami(), *pid, "{transport:?}");
        }
        // New connections still reach both, and nobody was replaced.
        let mut pids: Vec<_> = server.one_per_worker(2).into_iter().map(|(_, pid)| pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [first.min(second), first.max(second)], "{transport:?}");
        until("all descriptors of the case to be closed", || {
            processes.map(descriptors).iter().zip(before).all(|(now, before)| *now <= before).then_some(())
        });
    }
}

fn code(answer: &Value) -> &str {
    assert!(answer["error"]["message"].is_string(), "{answer}");
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

fn pong(raw: &mut Raw, n: u64) {
    assert_eq!(raw.call("ping", json!(n)), json!({ "out": "pong", "result": n }));
}

#[test]
fn ping_is_answered_by_pong_with_every_digit() {
    both(|server| {
        let mut raw = server.connect();
        let params = r#"{"n":123456789012345678901234567890,"f":0.10}"#;
        raw.send(&frame(format!(r#"{{"in":"ping","params":{params}}}"#).as_bytes()));
        assert_eq!(raw.receive_text().unwrap(), format!(r#"{{"out":"pong","result":{params}}}"#));
        raw.send(&frame(br#"{"in":"ping"}"#));
        assert_eq!(raw.receive().unwrap(), json!({"out": "pong", "result": null}));
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    both(|server| {
        let mut raw = server.connect();
        for n in 0..3 {
            for byte in request("ping", &json!(n)) {
                raw.send(&[byte]);
            }
            assert_eq!(raw.receive().unwrap()["result"], n);
        }
    });
}

#[test]
fn many_requests_in_one_write_are_answered_in_order() {
    both(|server| {
        let mut raw = server.connect();
        let mut bytes = Vec::new();
        for n in 0..500 {
            // Some wait: order is kept all the same.
            let (method, params) =
                if n % 100 == 0 { ("sleep", json!({"ms": 1})) } else { ("ping", json!(n)) };
            bytes.extend(request(method, &params));
        }
        raw.send(&bytes);
        for n in 0..500 {
            let answer = raw.receive().unwrap();
            let (out, result) = if n % 100 == 0 { ("sleep", 1) } else { ("pong", n) };
            assert_eq!((&answer["out"], &answer["result"]), (&json!(out), &json!(result)));
        }
    });
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    both(|server| {
        let mut raw = server.connect();
        raw.send(&[request("sleep", &json!({"ms": 20})), request("ping", &json!(1))].concat());
        raw.end_sending();
        assert_eq!(raw.receive().unwrap()["out"], "sleep");
        assert_eq!(raw.receive().unwrap()["out"], "pong");
        assert_eq!(raw.receive(), None);
    });
}

#[test]
fn a_stream_that_ends_anywhere_is_closed_without_a_word() {
    both(|server| {
        let bytes = request("ping", &json!("x"));
        for len in 0..bytes.len() {
            let mut raw = server.connect();
            raw.send(&bytes[..len]);
            raw.end_sending();
            assert_eq!(raw.receive(), None, "after {len} bytes");
        }
    });
}

#[test]
fn bad_bodies_are_answered_and_the_connection_goes_on() {
    both(|server| {
        let mut raw = server.connect();
        let deep = format!(r#"{{"in":"ping","params":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let cases: [(&[u8], &str); 13] = [
            (b"", "bad_json"),
            (b"{", "bad_json"),
            (b"\0\0\0\0", "bad_json"),
            (br#"{"in":"ping","params":1} {"in":"ping"}"#, "bad_json"),
            (b"{\"in\":\"ping\",\"params\":\"\xff\xfe\"}", "bad_utf8"),
            (b"[]", "bad_request"),
            (b"{}", "bad_request"),
            (br#"{"in":7}"#, "bad_request"),
            (br#"{"in":"ping","in":"ping"}"#, "bad_request"),
            (br#"{"in":"no such method","params":{}}"#, "unknown_method"),
            (br#"{"in":"burn","params":{}}"#, "invalid_params"),
            (br#"{"in":"burn","params":{"us":"1"}}"#, "invalid_params"),
            (&"[".repeat(100_000).into_bytes(), "too_deep"),
        ];
        for (n, (body, wanted)) in cases.iter().enumerate() {
            raw.send(&frame(body));
            let answer = raw.receive().unwrap();
            assert_eq!(code(&answer), *wanted, "{}", String::from_utf8_lossy(&body[..body.len().min(60)]));
            pong(&mut raw, n as u64);
        }
        // Deep parameters are no harm to a method that passes them on unread, and one to a method that looks.
        raw.send(&frame(deep.replace("ping", "burn").as_bytes()));
        assert_eq!(code(&raw.receive().unwrap()), "too_deep");
        pong(&mut raw, 99);
    });
}

#[test]
fn a_frame_over_the_limit_is_answered_before_its_body_and_ends_the_connection() {
    both(|server| {
        for len in [u32::MAX, (16 << 20) + 1] {
            let mut raw = server.connect();
            pong(&mut raw, 1);
            raw.send(&len.to_le_bytes());
            assert_eq!(code(&raw.receive().unwrap()), "too_large");
            assert_eq!(raw.receive(), None);
        }
        // A client that has sent much of it already can still read why.
        let mut raw = server.connect();
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.resize(1 << 20, b' ');
        let _ = raw.try_send(&bytes);
        assert_eq!(code(&raw.receive().unwrap()), "too_large");
    });
}

#[test]
fn a_frame_of_the_limit_itself_passes() {
    both(|server| {
        let mut raw = server.connect();
        let envelope = br#"{"in":"burn","params":{"us":0,"pad":""}}"#.len();
        let body =
            format!(r#"{{"in":"burn","params":{{"us":0,"pad":"{}"}}}}"#, "x".repeat((16 << 20) - envelope));
        assert_eq!(body.len(), 16 << 20);
        raw.send(&frame(body.as_bytes()));
        assert_eq!(raw.receive().unwrap()["result"], 0);
        // The same size to `ping` makes an answer over the limit: said so, and the connection goes on.
        let body = format!(
            r#"{{"in":"ping","params":"{}"}}"#,
            "x".repeat((16 << 20) - r#"{"in":"ping","params":""}"#.len())
        );
        raw.send(&frame(body.as_bytes()));
        assert_eq!(code(&raw.receive().unwrap()), "answer_too_large");
        pong(&mut raw, 2);
    });
}

#[test]
fn the_methods_can_be_asked_for() {
    both(|server| {
        let methods = server.connect().call("rpc.methods", Value::Null);
        assert_eq!(
            methods["result"]["methods"],
            json!([
                "burn",
                "count",
                "ping",
                "sleep",
                "whoami",
                "rpc.cancel",
                "rpc.health",
                "rpc.methods",
                "rpc.stats"
            ])
        );
    });
}

#[test]
fn a_peer_that_resets_or_never_reads_harms_nobody() {
    both(|server| {
        for _ in 0..20 {
            let mut raw = server.connect();
            // Answers that nobody reads, then gone with them unread: a reset over TCP.
            raw.send(&request("ping", &json!("x".repeat(1000))).repeat(20));
            drop(raw);
        }
        // One that is slow to read holds up itself only.
        let mut slow = server.connect();
        slow.send(&request("ping", &json!("x".repeat(60_000))).repeat(3));
        for _ in 0..4 {
            pong(&mut server.connect(), 1);
        }
        for _ in 0..3 {
            assert_eq!(slow.receive().unwrap()["out"], "pong");
        }
    });
}

#[test]
fn a_connection_may_break_at_any_byte() {
    both(|server| {
        let bytes = [request("sleep", &json!({"ms": 1})), request("ping", &json!("x"))].concat();
        for len in 0..bytes.len() {
            let mut raw = server.connect();
            raw.send(&bytes[..len]);
            raw.reset();
        }
    });
}

#[test]
fn a_flood_of_bad_frames_harms_nobody() {
    both(|server| {
        let mut raw = server.connect();
        let bad: [&[u8]; 4] = [b"", b"{\"in\":\"\xff\"}", b"nope", br#"{"in":"burn","params":{}}"#];
        let flood: Vec<u8> = bad.iter().cycle().take(2000).flat_map(|body| frame(body)).collect();
        raw.send(&flood);
        for n in 0..2000 {
            let wanted = ["bad_json", "bad_utf8", "bad_json", "invalid_params"][n % 4];
            assert_eq!(code(&raw.receive().unwrap()), wanted, "{n}");
        }
        pong(&mut raw, 1);
    });
}

#[test]
fn a_reader_that_reads_nothing_stops_its_own_requests_only() {
    both(|server| {
        let mut slow = server.connect();
        // 64 MB of answers: far more than socket and server hold. Sending gets stuck, and goes on when something is read.
        let sender = {
            let mut sender = slow.clone_socket();
            std::thread::spawn(move || {
                let request = request("ping", &json!("x".repeat(64_000)));
                (0..1000).for_each(|_| sender.send(&request));
            })
        };
        for n in 0..50 {
            pong(&mut server.connect(), n);
        }
        for _ in 0..1000 {
            assert_eq!(slow.receive().unwrap()["out"], "pong");
        }
        sender.join().unwrap();
    });
}
