//! `baton ls`: the members, or the blocks of one of them.

use std::collections::BTreeMap;

use baton_client::{BlockInfo, InboxInfo, Member, Observer};
use serde::Serialize;

use crate::args::LsArgs;
use crate::failure::Failure;
use crate::show;

/// What `baton ls --json` prints.
#[derive(Debug, Serialize)]
struct Listing {
    members: Vec<Member>,
    inboxes: Vec<InboxInfo>,
}

/// What `baton ls --held-by … --json` prints.
#[derive(Debug, Serialize)]
struct Holdings {
    members: Vec<Member>,
    blocks: Vec<BlockInfo>,
}

pub(crate) fn run(args: &LsArgs) -> Result<(), Failure> {
    let mut observer = crate::observer(&args.query)?;
    let members = observer.members()?;
    let text = match &args.held_by {
        None if args.query.json => show::json(&Listing { members, inboxes: observer.who_receives()? })?,
        None => show::members(&members),
        Some(asked) => {
            let chosen = choose(&members, asked)?;
            let blocks = blocks_of(&mut observer, &chosen)?;
            if args.query.json {
                show::json(&Holdings { members: chosen, blocks })?
            } else {
                show::blocks(&blocks, &members)
            }
        }
    };
    show::print(&text);
    Ok(())
}

/// The members meant: an endpoint's number, else a process id, else a name (which several may have).
fn choose(members: &[Member], asked: &str) -> Result<Vec<Member>, Failure> {
    let ways: [&dyn Fn(&Member) -> bool; 4] =
        [&|m| m.endpoint.to_string() == asked, &|m| m.pid.to_string() == asked, &|m| m.name == asked, &|m| {
            m.inbox.as_deref() == Some(asked)
        }];
    for way in ways {
        let chosen: Vec<_> = members.iter().filter(|m| way(m)).cloned().collect();
        if !chosen.is_empty() {
            return Ok(chosen);
        }
    }
    Err(Failure::NoMember { asked: asked.to_owned() })
}

/// By number; a block that two of the members hold is listed once.
fn blocks_of(observer: &mut Observer, members: &[Member]) -> Result<Vec<BlockInfo>, Failure> {
    let mut blocks = BTreeMap::new();
    for member in members {
        let mut from = Some(0);
        while let Some(at) = from {
            let (page, next) = observer.blocks(Some(member.endpoint), at, u32::MAX)?;
            blocks.extend(page.into_iter().map(|block| (block.block, block)));
            from = next.filter(|next| *next > at);
        }
    }
    Ok(blocks.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(endpoint: u16, pid: u32, name: &str) -> Member {
        let row = serde_json::json!({
            "endpoint": endpoint, "incarnation": 0, "pid": pid, "uid": 0, "name": name, "inbox": format!("{name}.in"),
            "read_only": false, "connected": true, "receiving": true, "blocks_held": 0, "bytes_held": 0, "queued": 0,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_member_is_found_by_number_process_and_name() {
        let members = [member(1, 300, "vas"), member(2, 1, "vss"), member(3, 301, "vss")];
        let chosen =
            |asked| choose(&members, asked).map(|found| found.iter().map(|m| m.endpoint).collect::<Vec<_>>());
        assert_eq!(chosen("1").unwrap(), [1], "the endpoint comes before the process id");
        assert_eq!(chosen("300").unwrap(), [1]);
        assert_eq!(chosen("vss").unwrap(), [2, 3]);
        assert_eq!(chosen("vas.in").unwrap(), [1]);
        assert!(chosen("wmits").unwrap_err().to_string().contains("`baton ls` lists"));
    }
}
