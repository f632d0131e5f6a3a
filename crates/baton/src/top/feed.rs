//! Samples: questions to the daemon, and what only comparing two answers tells (rates, ages).
//!
//! ```text
//!   connected ──answer──▶ Sample          away ──connects, answers──▶ Sample with a note
//!       │ no answer                        ▲ │ still nobody
//!       └── connect anew at once, fails ───┘ └──▶ Away {since}
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use baton_client::{ConnectError, Member, Observer, PoolInfo, QueryError};
use serde::Serialize;

/// Rows of blocks that are looked at in a sample, for their age: a bound on what a sample costs the daemon.
const BLOCKS_MAX: usize = 16_384;

/// Between two tries to reach a daemon that is away.
const RETRY: Duration = Duration::from_millis(250);

/// One look at everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// When, in milliseconds since 1970.
    pub(crate) time_unix_ms: u64,
    /// Since the sample before, which the rates refer to; `None` in the first.
    pub(crate) interval_ms: Option<u64>,
    /// True if the pool has more blocks in use than this program looks at: then `oldest_ms` may be too low.
    pub(crate) oldest_partial: bool,
    /// What happened to the daemon since the sample before.
    pub(crate) note: Option<String>,
    /// The pool.
    pub(crate) pool: PoolInfo,
    /// The members.
    pub(crate) members: Vec<Row>,
}

/// A member, and what it did since the sample before.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) member: Member,
    /// Messages received per second.
    pub(crate) in_per_s: Option<f64>,
    /// Messages sent per second.
    pub(crate) out_per_s: Option<f64>,
    /// How long it has been seen to hold its oldest block; `None` if it holds none.
    pub(crate) oldest_ms: Option<u64>,
}

/// What a look gave.
#[derive(Debug)]
pub(crate) enum Update {
    /// All well.
    Sample(Box<Sample>),
    /// The daemon does not answer.
    Away {
        /// Since when.
        since: Duration,
        /// What the last try gave.
        error: String,
    },
}

/// The life of an endpoint: number and incarnation.
type Life = (u16, u32);

/// Asks and compares.
#[derive(Debug)]
pub(crate) struct Feed {
    uri: String,
    interval: Duration,
    observer: Option<Observer>,
    away: Option<Instant>,
    before: Option<Before>,
    /// When an endpoint was first seen to hold a block in this generation.
    held_since: HashMap<(Life, u32, u16), Instant>,
}

#[derive(Debug)]
struct Before {
    at: Instant,
    adoptions: u32,
    /// Received and sent.
    counts: HashMap<Life, (u64, u64)>,
}

fn life(member: &Member) -> Life {
    (member.endpoint, member.incarnation)
}

impl Feed {
    pub(crate) fn connect(uri: &str, interval: Duration) -> Result<Self, ConnectError> {
        let observer = Some(Observer::connect(uri, Duration::ZERO)?);
        Ok(Self {
            uri: uri.to_owned(),
            interval,
            observer,
            away: None,
            before: None,
            held_since: HashMap::new(),
        })
    }

    /// How long to wait before the next look.
    pub(crate) fn pause(&self) -> Duration {
        match (&self.away, &self.before) {
            (Some(_), _) => RETRY.min(self.interval),
            (None, Some(before)) => self.interval.saturating_sub(before.at.elapsed()),
            (None, None) => Duration::ZERO,
        }
    }

    /// Looks now.
    pub(crate) fn next(&mut self) -> Update {
        let mut error = String::new();
        // A daemon that was restarted has cut the connection; its successor may be there already.
        for _ in 0..2 {
            let fresh = self.observer.is_none();
            match self.look() {
                Ok(mut sample) => {
                    if fresh {
                        sample.note = Some(self.came_back(&sample.pool));
                    }
                    self.away = None;
                    self.compare(&mut sample);
                    return Update::Sample(Box::new(sample));
                }
                Err(failed) => {
                    error = failed;
                    self.observer = None;
                }
            }
            if fresh {
                break;
            }
        }
        let since = self.away.get_or_insert_with(Instant::now).elapsed();
        Update::Away { since, error }
    }

    fn came_back(&self, pool: &PoolInfo) -> String {
        let after =
            self.away.map_or(String::new(), |since| format!(" after {:.1} s", since.elapsed().as_secs_f64()));
        match &self.before {
            Some(before) if pool.adoptions > before.adoptions => {
                format!("the daemon was restarted and has adopted the pool; connected again{after}")
            }
            Some(before) if pool.adoptions < before.adoptions => {
                format!("another daemon with a pool of its own answers now{after}")
            }
            _ => format!("connected again{after}"),
        }
    }

    fn look(&mut self) -> Result<Sample, String> {
        let observer = match &mut self.observer {
            Some(observer) => observer,
            place => {
                let connected = Observer::connect(&self.uri, Duration::ZERO);
                place.insert(connected.map_err(|error| error.to_string())?)
            }
        };
        let ask = |error: QueryError| error.to_string();
        let pool = observer.pool().map_err(ask)?;
        let members = observer.members().map_err(ask)?;
        let now = Instant::now();
        let mut oldest: HashMap<u16, Instant> = HashMap::new();
        let lives: HashMap<u16, Life> = members.iter().map(|m| (m.endpoint, life(m))).collect();
        let mut held = HashMap::new();
        let (mut seen, mut from) = (0, Some(0));
        while let Some(at) = from.filter(|_| seen < BLOCKS_MAX) {
            let (page, next) = observer.blocks(None, at, u32::MAX).map_err(ask)?;
            seen += page.len();
            for (block, holder) in page.iter().flat_map(|b| b.holders.iter().map(move |h| (b, h))) {
                let Some(life) = lives.get(&holder.endpoint).filter(|_| !holder.inbox) else { continue };
                let key = (*life, block.block, block.generation);
                let since = *self.held_since.get(&key).unwrap_or(&now);
                held.insert(key, since);
                oldest.entry(holder.endpoint).and_modify(|o| *o = since.min(*o)).or_insert(since);
            }
            from = next.filter(|next| *next > at);
        }
        self.held_since = held;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let row = |member: Member| Row {
            in_per_s: None,
            out_per_s: None,
            oldest_ms: oldest.get(&member.endpoint).map(|since| millis(now.duration_since(*since))),
            member,
        };
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Sample {
            time_unix_ms: millis(unix),
            interval_ms: self.before.as_ref().map(|before| millis(now.duration_since(before.at))),
            oldest_partial: from.is_some(),
            note: None,
            pool,
            members: members.into_iter().map(row).collect(),
        })
    }

    /// Fills in the rates, and remembers the counts for the next sample.
    fn compare(&mut self, sample: &mut Sample) {
        let now = Instant::now();
        let counts =
            sample.members.iter().map(|r| (life(&r.member), (r.member.received, r.member.sent))).collect();
        let after = Before { at: now, adoptions: sample.pool.adoptions, counts };
        let Some(before) = self.before.replace(after) else { return };
        let seconds = now.duration_since(before.at).as_secs_f64().max(1e-3);
        for row in &mut sample.members {
            // One that has come in between started at 0.
            let (received, sent) = before.counts.get(&life(&row.member)).copied().unwrap_or_default();
            let rate = |after: u64, before: u64| Some(after.saturating_sub(before) as f64 / seconds);
            row.in_per_s = rate(row.member.received, received);
            row.out_per_s = rate(row.member.sent, sent);
        }
    }
}
