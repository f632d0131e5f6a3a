//! Each fate of a request is told apart. The servers here are small and do one thing wrong each.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use baton_load::{Extent, Fates, Hot, LoadError, Matching, Outcome, Pace, Place, Plan, Verdict, run};

/// Serves every connection on a thread of its own, for as long as the test lives. Gives the address.
fn server(serve: impl Fn(&mut TcpStream) -> Option<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("ip://{}", listener.local_addr().unwrap());
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, serve) = (stream.unwrap(), serve.clone());
            thread::spawn(move || serve(&mut stream));
        }
    });
    uri
}

/// The next request's parameters, as JSON; none at the end of the stream.
fn request(stream: &mut TcpStream) -> Option<serde_json::Value> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn send(stream: &mut TcpStream, body: &serde_json::Value) -> Option<()> {
    let body = body.to_string();
    let frame = [&(body.len() as u32).to_le_bytes()[..], body.as_bytes()].concat();
    stream.write_all(&frame).ok()
}

fn answer(stream: &mut TcpStream, request: &serde_json::Value) -> Option<()> {
    send(stream, &serde_json::json!({"out": "pong", "result": request["params"]}))
}

fn plan(uri: &str, count: u64) -> Plan {
    let mut plan = Plan::new(uri.parse().unwrap());
    (plan.extent, plan.timeout) = (Extent::Count(count), Duration::from_secs(30));
    plan
}

fn load(plan: &Plan) -> Outcome {
    let outcome = run(plan, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(outcome.requests.sent, outcome.requests.ended(), "{outcome:?}");
    outcome
}

#[test]
fn right_answers_over_many_connections() {
    let uri = server(|stream| {
        loop {
            let asked = request(stream)?;
            answer(stream, &asked)?;
        }
    });
    let outcome = load(&Plan { connections: 5, depth: 7, size: 100_000, ..plan(&uri, 200) });
    assert_eq!(outcome.requests, Fates { sent: 200, right: 200, ..Fates::default() });
    assert_eq!((outcome.links.made, outcome.verdict()), (5, Verdict::AllRight));
    assert_eq!(outcome.histogram.len(), 200);
    // One request per connection, and a new connection for each.
    let outcome = load(&Plan { connections: 3, per_connection: Some(1), ..plan(&uri, 50) });
    assert_eq!((outcome.requests.right, outcome.links.made), (50, 50));
    assert_eq!((outcome.links.remade, outcome.verdict()), (0, Verdict::AllRight));
}

#[test]
fn wrong_out_of_order_twice_and_refused_are_told_apart() {
    // Of each five: two swapped, one answered with nonsense, one refused, the last answered twice.
    let uri = server(|stream| {
        loop {
            let asked =
                [request(stream)?, request(stream)?, request(stream)?, request(stream)?, request(stream)?];
            answer(stream, &asked[1])?;
            answer(stream, &asked[0])?;
            send(stream, &serde_json::json!({"out": "pong", "result": "something else"}))?;
            send(stream, &serde_json::json!({"error": {"code": "busy", "message": "not now"}}))?;
            answer(stream, &asked[4])?;
            answer(stream, &asked[4])?;
        }
    });
    let outcome = load(&Plan { depth: 5, ..plan(&uri, 50) });
    let expected =
        Fates { sent: 50, right: 20, out_of_order: 10, wrong: 10, refused: 10, ..Fates::default() };
    // The very last answer is one too many and comes after the end.
    let unasked = outcome.requests.unasked;
    assert_eq!(Fates { unasked: 0, ..outcome.requests }, expected);
    assert!((9..=10).contains(&unasked), "{unasked}");
    assert_eq!((outcome.refusals["busy"], outcome.verdict()), (10, Verdict::AnswersMissing));
}

#[test]
fn by_id_an_answer_out_of_order_is_right() {
    let uri = server(|stream| {
        loop {
            let asked = [request(stream)?, request(stream)?];
            for asked in asked.iter().rev() {
                let body = serde_json::json!({"out": "pong", "id": asked["id"], "result": asked["params"]});
                send(stream, &body)?;
            }
        }
    });
    let outcome = load(&Plan { depth: 2, matching: Matching::Id, ..plan(&uri, 40) });
    assert_eq!(outcome.requests, Fates { sent: 40, right: 40, ..Fates::default() });
}

#[test]
fn an_answer_that_does_not_come_in_time_ends_its_connection() {
    let uri = server(|stream| {
        let asked = request(stream)?;
        answer(stream, &asked)?;
        // Never answers the second one; ends with the client.
        while request(stream).is_some() {}
        Some(())
    });
    let outcome = load(&Plan { timeout: Duration::from_millis(200), ..plan(&uri, 4) });
    assert_eq!(outcome.requests, Fates { sent: 4, right: 2, timed_out: 2, ..Fates::default() });
    assert_eq!(outcome.links.given_up, 2);
}

#[test]
fn connections_that_end_early_are_made_anew_and_their_requests_lost() {
    let uri = server(|stream| {
        let asked = request(stream)?;
        answer(stream, &asked)?;
        request(stream).map(drop)
    });
    let outcome = load(&plan(&uri, 20));
    assert_eq!(outcome.requests, Fates { sent: 20, right: 10, lost: 10, ..Fates::default() });
    assert_eq!(outcome.links.early_ends + outcome.links.resets, 10);
    assert!(outcome.links.remade >= 9 && outcome.worst_outage_us > 0.0, "{outcome:?}");
}

#[test]
fn bytes_that_are_no_frames_end_the_connection() {
    let uri = server(|stream| {
        request(stream)?;
        stream.write_all(&[0xFF; 64]).ok()?;
        while request(stream).is_some() {}
        Some(())
    });
    let outcome = load(&plan(&uri, 3));
    assert_eq!(outcome.requests, Fates { sent: 3, lost: 3, ..Fates::default() });
    assert_eq!(outcome.links.given_up, 3);
}

/// A server that stands still once makes one request late in a closed loop; in an open loop all that were due meanwhile.
#[test]
fn an_open_loop_does_not_omit_what_was_due_while_the_server_stood_still() {
    let still = || {
        server(|stream| {
            for number in 0.. {
                let asked = request(stream)?;
                if number == 10 {
                    thread::sleep(Duration::from_millis(400));
                }
                answer(stream, &asked)?;
            }
            Some(())
        })
    };
    let late = |outcome: &Outcome| outcome.histogram.count_between(100_000_000, u64::MAX);
    // 1 request a millisecond: of those due in the 400 ms of standing still, 300 wait for 100 ms or more.
    let open = load(&Plan { pace: Pace::Rate(1000.0), ..plan(&still(), 700) });
    assert_eq!(open.requests.right, 700);
    assert!(late(&open) >= 290, "{}", late(&open));
    let closed = load(&plan(&still(), 700));
    assert!(late(&closed) < late(&open), "{}", late(&closed));
    // Depth 1: nothing is sent before the last one is answered; what was not sent at the end is said.
    let end = Extent::Time(Duration::from_millis(100));
    let unsent = load(&Plan { pace: Pace::Rate(1000.0), extent: end, ..plan(&still(), 1) });
    assert!(unsent.requests.unsent > 0 && unsent.verdict() == Verdict::AnswersMissing, "{unsent:?}");
    assert_eq!(unsent.requests.sent + unsent.requests.unsent, 100);
}

#[test]
fn hot_connections_send_their_share_in_both_loops() {
    let uri = server(|stream| {
        // The result is this connection, so that its requests can be counted.
        let name = stream.peer_addr().ok()?.port();
        loop {
            request(stream)?;
            send(stream, &serde_json::json!({"out": "whoami", "result": name}))?;
        }
    });
    for pace in [Pace::Closed, Pace::Rate(20_000.0)] {
        let hot = Hot { connections: 0.1, requests: 0.9, place: Place::Random(1) };
        let plan = Plan { connections: 10, hot: Some(hot), pace, count_results: true, ..plan(&uri, 2000) };
        let plan = Plan { method: "whoami".into(), expect: baton_load::Expect::Any, ..plan };
        let spread = load(&plan).spread.unwrap();
        let most = *spread.answers.values().max().unwrap();
        assert!((1790..=1810).contains(&most), "{pace:?}: {spread:?}");
        assert_eq!(spread.connections.len(), 10);
        // One of ten with 90 %, nine with 1.1 % each.
        assert!((2.6..2.7).contains(&spread.answers_variation), "{spread:?}");
    }
}

#[test]
fn where_nobody_listens_there_is_nothing_to_report() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("un://{}", dir.path().join("none.sock").display());
    for uri in [format!("ip://{gone}"), unix] {
        let result = run(&plan(&uri, 1), &AtomicBool::new(false), &mut |_| {});
        assert!(matches!(result, Err(LoadError::Connect { .. })), "{result:?}");
    }
    let zero = Plan { connections: 0, ..plan("ip://127.0.0.1:1", 1) };
    let result = run(&zero, &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(result, Err(LoadError::Plan(_))), "{result:?}");
}
