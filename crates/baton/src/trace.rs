//! `baton trace`: a block, or the messages to an inbox, through their holders.
//!
//! ```text
//!   block:  look ──changed──▶ line ──▶ look …                      until -n, --for, or the pool ends
//!   inbox:  pass over all blocks: unread there? ──▶ followed ──look, changed──▶ line ──free or reused──▶ no longer followed
//! ```
//! All of it is reading the hold words in shared memory; only names come from the daemon. A daemon that is away is not
//! waited for: then endpoints are shown by number.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton_client::{BlockId, BlockInfo, Client, ConnectOptions, Holder, Inbox};
use serde::Serialize;

use crate::args::TraceArgs;
use crate::failure::Failure;
use crate::show::{self, Names};

/// Between two looks. The kernel makes some tens of microseconds more of it.
const PAUSE: Duration = Duration::from_micros(20);

/// Between two looks at whether the pool still lives and who receives under the inbox' name.
const SLOW: Duration = Duration::from_millis(200);

/// How long a daemon that did not answer is left alone.
const QUIET: Duration = Duration::from_secs(5);

/// Messages followed at a time; more are not begun until one is free.
const FOLLOWED_MAX: usize = 4096;

/// One change.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Since the start.
    seconds: f64,
    block: u32,
    generation: u16,
    /// Nobody holds it.
    free: bool,
    holders: &'a [Holder],
    /// Names of the holders, by endpoint.
    names: BTreeMap<u16, &'a str>,
}

pub(crate) fn run(args: &TraceArgs) -> Result<(), Failure> {
    let options = ConnectOptions::new("baton-trace").read_only().timeout(Duration::ZERO);
    let (client, inbox) = Client::connect(&args.query.connect, options)?;
    let names = show::names(&client.members()?);
    let mut trace = Trace {
        client,
        inbox,
        names,
        quiet_until: None,
        begin: Instant::now(),
        json: args.query.json,
        left: args.lines.unwrap_or(u64::MAX),
    };
    match (args.block, &args.inbox) {
        (Some(block), _) => trace.block(block, args.duration),
        (None, Some(name)) => trace.inbox(name, args.duration),
        (None, None) => Err(Failure::Usage("say which block, or --inbox NAME".into())),
    }
}

struct Trace {
    client: Client,
    inbox: Inbox,
    names: Names,
    quiet_until: Option<Instant>,
    begin: Instant,
    json: bool,
    left: u64,
}

impl Trace {
    fn block(&mut self, block: BlockId, limit: Option<Duration>) -> Result<(), Failure> {
        let mut last = None;
        let mut checked = Instant::now();
        loop {
            let now = self.client.look(block);
            if now != last {
                if let Some(info) = &now
                    && !self.tell(info)?
                {
                    return Ok(());
                }
                last = now; // `None`: its memory serves another block size meanwhile
            }
            if !self.go_on(limit, &mut checked)? {
                return Ok(());
            }
        }
    }

    fn inbox(&mut self, name: &str, limit: Option<Duration>) -> Result<(), Failure> {
        let mut reader = self.reader(name)?.ok_or_else(|| Failure::NoInbox { asked: name.to_owned() })?;
        let mut followed: BTreeMap<u32, BlockInfo> = BTreeMap::new();
        let mut checked = Instant::now();
        loop {
            let before = checked;
            for info in self.client.blocks_in_use() {
                let unread = info.holders.contains(&Holder { endpoint: reader, inbox: true });
                if unread && followed.len() < FOLLOWED_MAX && !followed.contains_key(&info.block) {
                    if !self.tell(&info)? {
                        return Ok(());
                    }
                    followed.insert(info.block, info);
                }
            }
            for block in followed.keys().copied().collect::<Vec<_>>() {
                let Some(last) = followed.get_mut(&block) else { continue };
                let now =
                    self.client.look(BlockId::new(block)).filter(|now| now.generation == last.generation);
                // Allocated anew between two looks: in between it was free.
                let now = now.unwrap_or_else(|| BlockInfo { holders: Vec::new(), ..last.clone() });
                if now == *last {
                    continue;
                }
                *last = now.clone();
                if now.holders.is_empty() {
                    followed.remove(&block);
                }
                if !self.tell(&now)? {
                    return Ok(());
                }
            }
            if !self.go_on(limit, &mut checked)? {
                return Ok(());
            }
            if before != checked && self.may_ask() {
                match self.reader(name) {
                    Ok(found) => reader = found.unwrap_or(reader), // started again, perhaps
                    Err(_) => self.quiet_until = Some(Instant::now() + QUIET),
                }
            }
        }
    }

    /// The endpoint that receives under a name.
    fn reader(&mut self, name: &str) -> Result<Option<u16>, Failure> {
        let inboxes = self.client.who_receives()?;
        Ok(inboxes.into_iter().find(|inbox| inbox.inbox == name).map(|inbox| inbox.endpoint))
    }

    /// Prints one line; false: that was the last.
    fn tell(&mut self, info: &BlockInfo) -> Result<bool, Failure> {
        self.learn(info);
        let seconds = self.begin.elapsed().as_secs_f64();
        let names = &self.names;
        let free = info.holders.is_empty();
        let text = if self.json {
            let of = |h: &Holder| Some((h.endpoint, names.get(&h.endpoint)?.as_str()));
            show::json_line(&Line {
                seconds,
                block: info.block,
                generation: info.generation,
                free,
                holders: &info.holders,
                names: info.holders.iter().filter_map(of).collect(),
            })?
        } else {
            format!(
                "{seconds:>11.6}  block {:<5} gen {:<5}  {}\n",
                info.block,
                info.generation,
                text(info, names)
            )
        };
        self.left -= 1;
        Ok(show::print_or_closed(&text) && self.left > 0)
    }

    fn may_ask(&self) -> bool {
        self.quiet_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Asks for the names again if there is a number without one.
    fn learn(&mut self, info: &BlockInfo) {
        let known = info.holders.iter().all(|h| self.names.contains_key(&h.endpoint));
        if known || !self.may_ask() {
            return;
        }
        match self.client.members() {
            Ok(members) => self.names = show::names(&members),
            Err(_) => self.quiet_until = Some(Instant::now() + QUIET),
        }
    }

    /// Rests a little; false when the time is over.
    fn go_on(&mut self, limit: Option<Duration>, checked: &mut Instant) -> Result<bool, Failure> {
        if limit.is_some_and(|limit| self.begin.elapsed() >= limit) {
            return Ok(false);
        }
        if checked.elapsed() >= SLOW {
            self.inbox.try_recv()?; // closed when the pool ends
            *checked = Instant::now();
        }
        std::thread::sleep(PAUSE);
        Ok(true)
    }
}

fn text(info: &BlockInfo, names: &Names) -> String {
    let of = |inbox| -> Vec<Holder> { info.holders.iter().filter(|h| h.inbox == inbox).copied().collect() };
    let part = |title: &str, those: Vec<Holder>| {
        (!those.is_empty()).then(|| format!("{title} {}", show::holders(&those, names)))
    };
    let parts = [part("held by", of(false)), part("unread by", of(true))];
    match parts.into_iter().flatten().collect::<Vec<_>>() {
        parts if parts.is_empty() => "free".into(),
        parts => parts.join("; "),
    }
}
