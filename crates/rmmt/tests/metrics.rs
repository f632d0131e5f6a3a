//! The numbers, as Prometheus reads them.

mod stage;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use baton_client::ConnectOptions;
use stage::{Daemon, WATCHDOG, until};

/// Status and body.
fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Status of `GET path` on a connection of its own; 0 if it is closed unanswered.
fn status(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut answer = String::new();
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    match asked.and_then(|()| stream.read_to_string(&mut answer)) {
        Ok(_) => answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Every sample by its name and labels. Panics if a line is neither a sample nor a comment.
fn scrape(port: u16) -> HashMap<String, f64> {
    let (status, text) = ask(port, "GET /metrics");
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("baton_"), "{line}");
        (name.to_owned(), value.parse::<f64>().unwrap())
    });
    samples.collect()
}

fn port(daemon: &Daemon) -> u16 {
    let line = daemon.logged(&["rmmt: metrics at ip://127.0.0.1:"]);
    line.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_scrape_names_members_counts_deaths_and_outlives_the_daemon() {
    let daemon = Daemon::with("metrics");
    let port = port(&daemon);
    let (client, mut inbox) = daemon.member(ConnectOptions::new("reader").inbox("in"));
    let mut holder = daemon.puppet("holder", "");
    holder.ask("hold 3 100000");
    assert_eq!(holder.ask("send in"), "sent 0");
    let here = format!("endpoint=\"1\",name=\"reader\",pid=\"{}\",kind=\"attached\"", std::process::id());
    let there = format!("endpoint=\"2\",name=\"holder\",pid=\"{}\",kind=\"attached\"", holder.pid());
    let seen = scrape(port);
    let value = |seen: &HashMap<String, f64>, name: &str| {
        *seen.get(name).unwrap_or_else(|| panic!("{name} in {seen:?}"))
    };
    assert_eq!(value(&seen, &format!("baton_member_blocks{{{there}}}")), 2.0);
    assert!(value(&seen, &format!("baton_member_bytes{{{there}}}")) >= 200_000.0);
    assert_eq!(value(&seen, &format!("baton_member_queue{{{here}}}")), 1.0);
    assert_eq!(value(&seen, &format!("baton_member_sent_total{{{there}}}")), 1.0);
    assert_eq!(value(&seen, "baton_pool_in_use_blocks"), 3.0);
    assert_eq!(value(&seen, "baton_pool_bytes"), f64::from(16 << 20));
    for zero in [
        "deaths_reaped_total",
        "adoptions_total",
        "keepers_started_total",
        "classic_connections",
        "over_quota_processes",
        "reap_seconds_count",
    ] {
        assert_eq!(value(&seen, &format!("baton_{zero}")), 0.0, "{zero}");
    }
    inbox.recv(None).unwrap().unwrap();
    assert_eq!(value(&scrape(port), &format!("baton_member_received_total{{{here}}}")), 1.0);

    holder.kill();
    let seen = until("the death to be counted", || {
        Some(scrape(port)).filter(|seen| value(seen, "baton_deaths_reaped_total") == 1.0)
    });
    assert_eq!(value(&seen, "baton_reap_seconds_count"), 1.0);
    assert_eq!(value(&seen, "baton_pool_in_use_blocks"), 0.0);
    assert!(!seen.keys().any(|name| name.contains("holder")));

    daemon.kill_and_wait();
    let seen = scrape(port);
    assert_eq!(value(&seen, "baton_adoptions_total"), 1.0);
    assert_eq!(value(&seen, &format!("baton_member_received_total{{{here}}}")), 1.0, "counted in the pool");
    drop(client);
}

#[test]
fn well_ready_and_nothing_else() {
    let daemon = Daemon::with("metrics");
    let port = port(&daemon);
    assert_eq!(ask(port, "GET /healthz"), (200, "ok\n".into()));
    assert_eq!(ask(port, "GET /readyz"), (200, "ready\n".into()));
    assert_eq!(ask(port, "GET /metrics/../etc").0, 404);
    assert_eq!(ask(port, "POST /metrics").0, 405);
    assert_eq!(ask(port, "garbage").0, 400);
    // Silent peers have their own places only, and the daemon serves on.
    let _silent: Vec<_> = (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(ask(port, "GET /healthz").0, 200);
    daemon.observer().pool().unwrap();
}

#[test]
fn too_many_scrapers_are_told_503_and_the_daemon_is_still_well() {
    let daemon = Daemon::with("metrics");
    let port = port(&daemon);
    // Whoever says nothing keeps its place for seconds: with as many as there are, the next one is over.
    let mut silent = Vec::new();
    let over = until("the places to be taken", || {
        silent.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
        Some(status(port, "/metrics")).filter(|status| *status != 200)
    });
    assert_eq!(over, 503);
    assert!(silent.len() <= 16, "{} places", silent.len());
    let (status, text) = ask(port, "GET /metrics");
    assert!(status == 503 && text.contains("try again later"), "{status} {text}");
    assert_eq!(ask(port, "GET /readyz").0, 503);
    assert_eq!(ask(port, "GET /healthz"), (200, "ok\n".into()));
    daemon.observer().pool().unwrap();
    drop(silent);
    until("room again", || (self::status(port, "/metrics") == 200).then_some(()));
}
