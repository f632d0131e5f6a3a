//! `baton load`: the load client, as text for people and JSON for programs.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_load::{Expect, Extent, Hot, Matching, Outcome, Pace, Place, Plan, Progress, Verdict};

use crate::args::time;
use crate::failure::Failure;
use crate::show;

/// Exit codes beside 0, 1 and 2.
const ANSWERS_MISSING: u8 = 3;
const CONNECTIONS_CUT: u8 = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The server: ip://HOST:PORT or un://PATH.
    #[arg(value_name = "URI")]
    address: baton_address::Address,

    /// Connections that are open at once.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    connections: usize,

    /// Requests that each connection may have under way.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    depth: usize,

    /// Open loop: send so many requests a second, over all connections; latency counts from when each should have left.
    #[arg(short, long, value_name = "N")]
    rate: Option<f64>,

    /// How long: 500ms, 10s, 2m.
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = "10s", conflicts_with = "requests")]
    duration: Duration,

    /// Send so many requests, however long that takes.
    #[arg(short = 'n', long, value_name = "N")]
    requests: Option<u64>,

    /// The method to call.
    #[arg(short, long, value_name = "NAME", default_value = "ping")]
    method: String,

    /// JSON of the parameters; otherwise a text that is different in each request.
    #[arg(short, long, value_name = "JSON")]
    params: Option<String>,

    /// Bytes of that text.
    #[arg(short, long, value_name = "N", default_value_t = 16, conflicts_with = "params")]
    size: usize,

    /// The right answer: `echo` (the parameters; usual for ping), `any` (whatever is no error; usual otherwise), or JSON.
    #[arg(long, value_name = "WHAT")]
    expect: Option<String>,

    /// Give each request an id, and take answers in any order.
    #[arg(long)]
    id: bool,

    /// A few connections send most: 10:90 lets 10 % of them send 90 % of the requests.
    #[arg(long, value_name = "C:R", value_parser = hot)]
    hot: Option<(f64, f64)>,

    /// Hot connections are each n-th, and not chosen by --seed.
    #[arg(long, value_name = "N", requires = "hot")]
    hot_every: Option<usize>,

    /// Chooses the hot connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Make a new connection after so many requests.
    #[arg(long, value_name = "N", conflicts_with = "hot")]
    per_connection: Option<u64>,

    /// Call `whoami` and show how requests and connections spread over the worker processes.
    #[arg(long, conflicts_with_all = ["method", "params", "expect"])]
    whoami: bool,

    /// How long a request may take.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,

    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Shares as people write them: percent, with a colon between.
fn hot(text: &str) -> Result<(f64, f64), String> {
    let percent =
        |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..100.0).contains(share) && *share > 0.0);
    let shares = text.split_once(':').and_then(|(c, r)| Some((percent(c)? / 100.0, percent(r)? / 100.0)));
    shares.ok_or_else(|| "write percent of the connections and of the requests, as in 10:90".into())
}

impl LoadArgs {
    fn plan(self) -> Plan {
        let method = if self.whoami { "whoami".to_owned() } else { self.method };
        let echoes = method == "ping";
        let params = if self.whoami { Some("null".to_owned()) } else { self.params };
        let place = self.hot_every.map_or(Place::Random(self.seed), Place::Every);
        Plan {
            connections: self.connections,
            depth: self.depth,
            pace: self.rate.map_or(Pace::Closed, Pace::Rate),
            extent: self.requests.map_or(Extent::Time(self.duration), Extent::Count),
            expect: match self.expect.as_deref() {
                Some("echo") => Expect::Echo,
                None if echoes => Expect::Echo,
                None | Some("any") => Expect::Any,
                Some(json) => Expect::Value(json.to_owned()),
            },
            method,
            params,
            size: self.size,
            matching: if self.id { Matching::Id } else { Matching::Order },
            hot: self.hot.map(|(connections, requests)| Hot { connections, requests, place }),
            count_results: self.whoami,
            per_connection: self.per_connection,
            timeout: self.timeout,
            ..Plan::new(self.address)
        }
    }
}

/// Runs it; the verdict is the exit code.
pub(crate) fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    let json = args.json;
    let plan = args.plan();
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_interrupt(stop.clone());
    let is_watched = std::io::stderr().is_terminal();
    let outcome = baton_load::run(&plan, &stop, &mut |progress| {
        if is_watched {
            eprint!("\r{}\x1b[K", line(progress));
            let _ = std::io::stderr().flush();
        }
    })?;
    if is_watched {
        eprint!("\r\x1b[K");
    }
    show::print(&if json { show::json(&outcome)? } else { text(&outcome) });
    Ok(match outcome.verdict() {
        Verdict::AllRight => ExitCode::SUCCESS,
        Verdict::AnswersMissing => ExitCode::from(ANSWERS_MISSING),
        Verdict::ConnectionsCut => ExitCode::from(CONNECTIONS_CUT),
    })
}

/// The first Ctrl-C ends the run and shows what it found, the second one ends the program.
fn stop_at_interrupt(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
}

fn line(progress: &Progress) -> String {
    let Progress { elapsed, requests, connections } = progress;
    let bad = requests.ended() - requests.right + requests.unasked;
    format!(
        "{:.0} s: {connections} connections, {} right, {bad} not, {} under way",
        elapsed.as_secs_f64(),
        requests.right,
        requests.sent - requests.ended()
    )
}

fn text(outcome: &Outcome) -> String {
    let Outcome { requests, links, latency, client, .. } = outcome;
    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _never_fails = text.write_fmt(line);
    };
    say(format_args!(
        "{}: {} right answers in {:.2} s, {:.0} a second{}\n",
        outcome.address,
        requests.right,
        outcome.seconds,
        outcome.rate,
        if outcome.interrupted { " (interrupted)" } else { "" }
    ));
    say(format_args!(
        "requests     {} sent: {} right, {} refused, {} wrong, {} out of order, {} timed out, {} lost\n",
        requests.sent,
        requests.right,
        requests.refused,
        requests.wrong,
        requests.out_of_order,
        requests.timed_out,
        requests.lost
    ));
    if requests.unasked + requests.unsent > 0 {
        let (unasked, unsent) = (requests.unasked, requests.unsent);
        say(format_args!(
            "             {unasked} answers nobody asked for; {unsent} requests due, never sent\n"
        ));
    }
    for (code, count) in &outcome.refusals {
        say(format_args!("             {count} times error `{}`\n", code.escape_debug()));
    }
    say(format_args!(
        "connections  {} made: {} anew; {} attempts failed, {} reset, {} ended early, {} given up\n",
        links.made, links.remade, links.failed, links.resets, links.early_ends, links.given_up
    ));
    say(format_args!(
        "latency      mean {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}\n",
        span(latency.mean_us),
        span(latency.p50_us),
        span(latency.p90_us),
        span(latency.p99_us),
        span(latency.p999_us),
        span(latency.max_us)
    ));
    say(format_args!(
        "worst        {} without any answer, {} without a connection\n",
        span(outcome.worst_gap_us),
        span(outcome.worst_outage_us)
    ));
    say(format_args!(
        "client       {:.2} s of CPU, {:.0} % of a core{}\n",
        client.cpu_seconds,
        client.core_share * 100.0,
        if outcome.is_client_the_limit() {
            ": the client is the limit, the server may be able to do more"
        } else {
            ""
        }
    ));
    if let Some(spread) = &outcome.spread {
        for (result, answers) in &spread.answers {
            let connections = spread.connections.get(result).copied().unwrap_or(0);
            say(format_args!("worker       {result}: {answers} answers, {connections} connections\n"));
        }
        say(format_args!(
            "variation    {:.3} of answers, {:.3} of connections\n",
            spread.answers_variation, spread.connections_variation
        ));
    }
    text
}

fn span(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_people_write_them() {
        assert_eq!(hot("10:90"), Ok((0.1, 0.9)));
        for text in ["", "10", "0:90", "10:100", "-1:5", "a:b", "10:90:1"] {
            assert!(hot(text).is_err(), "{text}");
        }
    }
}
