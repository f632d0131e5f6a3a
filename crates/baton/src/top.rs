//! `baton top`: the members at work, sample after sample.
//!
//! ```text
//!   feed (asks the daemon, reconnects) ──Update──▶ batch: text or JSON lines
//!                                      └─channel─▶ screen: app (state, keys) ── draw ──▶ terminal
//! ```
//! On the screen the feed runs on a thread of its own, so that keys are answered while a daemon is away. The terminal is
//! put back by [`screen`] however the program ends: key, sample count, signal, error or panic (only SIGKILL leaves it).

mod app;
mod columns;
mod draw;
mod feed;
mod screen;

use std::io::IsTerminal;
use std::time::Duration;

use crate::args::TopArgs;
use crate::failure::Failure;
use crate::show;
use feed::{Feed, Sample, Update};

/// How long a script waits for a daemon that is being restarted.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    let batch = args.batch || args.query.json;
    if !batch && !std::io::stdout().is_terminal() {
        let sentence = "top draws on a terminal, and standard output is none: use --batch or --json";
        return Err(Failure::Usage(sentence.into()));
    }
    let feed = Feed::connect(&args.query.connect, args.interval)?;
    if batch { print_samples(args, feed) } else { screen::run(args, feed) }
}

fn print_samples(args: &TopArgs, mut feed: Feed) -> Result<(), Failure> {
    let mut left = args.samples.unwrap_or(u64::MAX);
    let mut pause = Duration::ZERO;
    while left > 0 {
        std::thread::sleep(pause);
        match feed.next() {
            Update::Sample(sample) => {
                left -= 1;
                let text = if args.query.json { show::json_line(&sample)? } else { text(&sample) };
                if !show::print_or_closed(&text) {
                    return Ok(()); // nobody reads any more
                }
            }
            Update::Away { since, error } if since > PATIENCE => {
                return Err(Failure::Away { seconds: since.as_secs(), error });
            }
            Update::Away { .. } => {}
        }
        pause = feed.pause();
    }
    Ok(())
}

/// A sample as plain text: what the pool does, one row per member, an empty line.
fn text(sample: &Sample) -> String {
    let mut text = headline(sample) + "\n";
    if let Some(note) = &sample.note {
        text += &format!("note: {note}\n");
    }
    let mut rows = vec![columns::ALL.map(|column| column.title().to_owned())];
    let mut members: Vec<_> = sample.members.iter().collect();
    members.sort_by(|a, b| columns::Column::Bytes.order(a, b));
    rows.extend(members.into_iter().map(|row| columns::ALL.map(|column| column.text(row))));
    text + &show::table(&rows) + "\n"
}

/// The pool in one line.
fn headline(sample: &Sample) -> String {
    let pool = &sample.pool;
    let percent = (u128::from(pool.bytes_in_use) * 100).checked_div(pool.bytes_total.into()).unwrap_or(0);
    format!(
        "pool {} of {} in use ({percent} %) in {} blocks, {} members, adopted {} times, {} deaths",
        show::bytes(pool.bytes_in_use),
        show::bytes(pool.bytes_total),
        pool.blocks_in_use,
        sample.members.len(),
        pool.adoptions,
        pool.deaths,
    )
}
