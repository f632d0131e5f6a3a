//! The command line: what can be asked, and the help that teaches it.

use std::path::PathBuf;
use std::time::Duration;

use baton_client::BlockId;
use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// Passes memory and sockets between processes, and drops neither.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    after_help = "\
A first look, in three terminals:
  baton rmmt --listen un:///tmp/rmmt.sock --size 64MiB
  BATON_RMMT=un:///tmp/rmmt.sock your-program            (attaches with the SDK, crate baton-client)
  baton top --connect un:///tmp/rmmt.sock                (then: ls, inspect, trace, audit)

BATON_RMMT stands for --connect and --listen wherever they are not given.

Exit codes: 0 ok, 1 failed (baton audit: does not balance), 2 usage, 78 cannot work with this configuration; \
those of baton load are in its own help"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the memory daemon: create the pool, admit processes, take back what the dead held.
    #[command(after_help = "\
Two processes start: the keeper, which holds the pool's memory and the socket, and the daemon, which serves. If the \
daemon is killed, the keeper starts another one that adopts the pool with every count intact; members do not notice. \
Stop it with SIGTERM or Ctrl-C: the socket file goes, and with the last member the memory.

  baton rmmt --listen un:///run/user/1000/rmmt.sock --size 1GiB
  kill -TERM $(pgrep -o -f 'baton rmmt')")]
    Rmmt(baton_rmmt::Args),

    /// Watch the members work: what they hold, how fast they pass messages, what waits.
    #[command(after_help = "\
Columns: HELD blocks and their bytes; IN/s OUT/s messages received and sent per second; QUEUE unread messages / how \
many its inbox takes; WAITS times it waited for room or memory; DROPS own unread messages replaced by newer ones; OLDEST how long it \
has held its oldest block, as far as this program has watched (a few spare blocks for its next allocations count, too).

Keys: s sort by the next column, r reverse, p pause, arrows and page keys move, ? help, q quit.

  baton top --batch -n 3 -i 2s          three samples as plain text
  baton top --json -n 1 | jq .pool      one JSON object per sample and line")]
    Top(TopArgs),

    /// List the members of the pool and the inboxes one can send to; with --held-by, the blocks of one of them.
    #[command(after_help = "\
Columns: ID endpoint; HELD blocks this process holds (a few spare ones for its next allocations included) and their \
bytes; QUEUED messages that wait in its inbox; STATE: ok, silent (has not spoken since the daemon was restarted), \
closed (hung up, but its process lives and keeps its blocks).

  baton ls --held-by vss-0              the blocks of all endpoints of that name
  baton ls --held-by 4711               … of the process 4711, or of endpoint 3 with --held-by 3")]
    Ls(LsArgs),

    /// Look at one block: its holders, its frame header, its bytes, its picture as a PNG file.
    #[command(after_help = "\
While it looks, this program is one more holder of the block: what it reads cannot change under it. A block that nobody \
holds is free, has no contents, and is refused with exit code 1. `baton ls --held-by NAME` tells the numbers.

  baton inspect 17 --png frame.png
  baton inspect 17 --hex 64")]
    Inspect(InspectArgs),

    /// Follow a block, or all messages to one inbox, through their holders.
    #[command(after_help = "\
The hold words are read in shared memory, over and over, without a word to anybody; the members do not notice. So a \
holder that lets go again within some ten microseconds (with --inbox: within one pass over all blocks) may be missed. \
A line is printed for each change seen: seconds since the start, block, generation (+1 per allocation), holders.

  baton trace 17 --for 10s
  baton trace --inbox wmits.frames -n 100 --json")]
    Trace(TraceArgs),

    /// Check that every block is accounted for: exit code 0 if it balances, 1 if not.
    #[command(after_help = "\
Each block must be free, or held by somebody who lives; each message must lie in the inbox of its receiver. What does \
not balance is listed, block by block. Members go on working meanwhile: what is under way is looked at again.

  baton audit && echo fine
  baton audit --json | jq .problems")]
    Audit(Query),

    /// Show the pool: size, use, block sizes.
    #[command(after_help = "\
BLOCK is a size that blocks have now, BLOCKS how many of it there are, IN USE how many of them somebody holds. Sizes come \
and go as they are asked for: memory that holds nothing becomes blocks of another size.

  baton info
  baton info --json | jq .bytes_in_use")]
    Info(Query),

    /// Load a framed JSON server, check every answer, and say how it fared.
    #[command(after_help = "\
A closed loop (no --rate) sends the next request when an answer has come. An open loop (--rate) means to send at fixed \
instants, whatever the server does, and counts latency from them, so that a server that stands still is seen.

Each request ends as one of: right; refused (an error frame); wrong (an answer to no request of this connection); out of \
order; timed out; lost (its connection ended first).

  baton load ip://127.0.0.1:7000 -c 64 -d 16 --for 10s
  baton load un:///run/me.sock -c 100 -r 5000 --hot 10:90
  baton load ip://127.0.0.1:7000 -c 400 -n 4000 --whoami
  baton load ip://127.0.0.1:7000 --method burn --params '{\"us\": 50}' --expect 50 --json | jq .latency

Exit codes: 0 every answer right, 1 no connection came about, 2 usage, 3 some request did not get its right answer, \
4 every answer right but connections failed or were cut")]
    Load(crate::load::LoadArgs),

    /// Measure: `baton bench memory` compares the pool with its rivals, in one run.
    #[command(
        arg_required_else_help = true,
        override_usage = "baton bench memory [ARGUMENTS]...",
        after_help = "\
Runs the program baton-bench-memory that lies beside this one or on PATH, with the arguments that follow. It is built in \
a workspace of its own, since it brings the rivals along: `./x bench` in Baton's repository builds and runs it.

  baton bench memory --quick"
    )]
    Bench(crate::bench::Bench),

    /// Print a completion script for a shell.
    #[command(after_help = "  baton completions bash > ~/.local/share/bash-completion/completions/baton")]
    Completions {
        /// Which shell.
        shell: Shell,
    },

    /// Write the manual pages (baton.1, baton-top.1, …) into a directory.
    Man {
        /// An existing directory.
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    /// The daemon to ask.
    #[arg(long, value_name = "un://PATH", env = "BATON_RMMT")]
    pub(crate) connect: String,

    /// Print JSON for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) query: Query,

    /// Print samples as plain text instead of drawing.
    #[arg(short, long)]
    pub(crate) batch: bool,

    /// End after so many samples.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) samples: Option<u64>,

    /// Time between two samples: 500ms, 2s, 1m.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) query: Query,

    /// List the blocks that this member holds or has unread: a name, a process id, or an endpoint's number.
    #[arg(long, value_name = "MEMBER")]
    pub(crate) held_by: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Number of the block.
    #[arg(value_parser = block)]
    pub(crate) block: BlockId,

    #[command(flatten)]
    pub(crate) query: Query,

    /// Write the picture as PNG to this file, `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,

    /// Write the bytes of the block as they are to this file, `-` for standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "png")]
    pub(crate) raw: Option<PathBuf>,

    /// Show the first N bytes.
    #[arg(long, value_name = "N")]
    pub(crate) hex: Option<usize>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["block", "inbox"]))]
pub(crate) struct TraceArgs {
    /// Number of the block.
    #[arg(value_parser = block)]
    pub(crate) block: Option<BlockId>,

    /// Follow every message to this inbox, from when it arrives until its block is free.
    #[arg(long, value_name = "NAME")]
    pub(crate) inbox: Option<String>,

    #[command(flatten)]
    pub(crate) query: Query,

    /// End after so many lines.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lines: Option<u64>,

    /// End after this time: 500ms, 10s, 2m.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
}

fn block(text: &str) -> Result<BlockId, String> {
    match text.parse() {
        Ok(id) if id < 1 << 24 => Ok(BlockId::new(id)),
        _ => Err("a block's number is 0 to 16777215; `baton ls --held-by MEMBER` lists them".into()),
    }
}

/// A number with the unit ms, s (also without one) or m.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("write a time as 500ms, 2s or 1m".into()),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * scale).ok())
        .filter(|time| *time <= Duration::from_secs(366 * 86_400))
        .ok_or_else(|| "write a time as 500ms, 2s or 1m".into())
}

/// Not shorter than what the daemon can count in without being kept from its work.
fn interval(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time < Duration::from_millis(50) => Err("at least 50ms".into()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, ms) in [("500ms", 500), ("2s", 2000), ("0.5", 500), ("1m", 60_000), ("1.5 s", 1500)] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "1e9", "1.2.3s", "9999999999999999999999s"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(interval("1ms").is_err());
        assert_eq!(interval("50ms"), Ok(Duration::from_millis(50)));
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_trace_follows_one_thing() {
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["baton", "trace", "--connect", "un:///x"], args].concat());
        assert!(parse(&["17"]).is_ok());
        assert!(parse(&["--inbox", "a"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["17", "--inbox", "a"]).is_err());
        assert!(parse(&["16777216"]).is_err());
    }
}
