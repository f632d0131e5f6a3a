//! Answers as text for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use baton_client::{AuditReport, BlockInfo, Holder, Member, MemberKind, PoolInfo};
use serde::Serialize;

/// To standard output. `baton ls | head` ends the reader early; that is no failure of ours.
pub(crate) fn print(text: &str) {
    let _ = print_or_closed(text);
}

/// To standard output; false if nobody reads there any more.
pub(crate) fn print_or_closed(text: &str) -> bool {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Indented, with a line end.
pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// One line, with a line end.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// How a member works with the pool, in one word.
pub(crate) fn kind(member: &Member) -> &'static str {
    match (member.kind, member.read_only) {
        (MemberKind::Attached, true) => "reader",
        (MemberKind::Attached, false) => "attached",
        (MemberKind::Classic, _) => "classic",
        (MemberKind::Daemon, _) => "daemon",
        (MemberKind::Unknown, _) => "other",
    }
}

/// Whether the daemon hears from it.
pub(crate) fn state(member: &Member) -> &'static str {
    match (member.receiving, member.connected) {
        (false, _) => "closed",
        (true, true) => "ok",
        (true, false) => "silent",
    }
}

/// One row per member.
pub(crate) fn members(members: &[Member]) -> String {
    if members.is_empty() {
        return "nobody is attached\n".into();
    }
    let titles = ["ID", "PID", "NAME", "INBOX", "KIND", "STATE", "HELD", "BYTES", "QUOTA", "QUEUED"];
    let mut rows = vec![titles.map(String::from)];
    rows.extend(members.iter().map(|m| {
        [
            m.endpoint.to_string(),
            m.pid.to_string(),
            m.name.clone(),
            m.inbox.clone().unwrap_or_else(|| "-".into()),
            kind(m).into(),
            state(m).into(),
            m.blocks_held.to_string(),
            bytes(m.bytes_held),
            if m.quota_bytes == 0 { "-".into() } else { bytes(m.quota_bytes) },
            m.queued.to_string(),
        ]
    }));
    table(&rows)
}

/// One row per block.
pub(crate) fn blocks(blocks: &[BlockInfo], members: &[Member]) -> String {
    if blocks.is_empty() {
        return "no blocks\n".into();
    }
    let names = names(members);
    let mut rows = vec![["BLOCK", "SIZE", "LENGTH", "GENERATION", "HELD BY", "UNREAD BY"].map(String::from)];
    rows.extend(blocks.iter().map(|b| {
        let of = |inbox| {
            let those: Vec<_> = b.holders.iter().filter(|h| h.inbox == inbox).copied().collect();
            if those.is_empty() { "-".into() } else { holders(&those, &names) }
        };
        [
            b.block.to_string(),
            bytes(b.class_bytes),
            b.len.to_string(),
            b.generation.to_string(),
            of(false),
            of(true),
        ]
    }));
    table(&rows)
}

/// Names by endpoint.
pub(crate) type Names = BTreeMap<u16, String>;

/// What the endpoints are called.
pub(crate) fn names(members: &[Member]) -> Names {
    members.iter().map(|m| (m.endpoint, m.name.clone())).collect()
}

/// `2 vas, 3 wmits`: number and name of each.
pub(crate) fn holders(holders: &[Holder], names: &Names) -> String {
    let one = |holder: &Holder| match names.get(&holder.endpoint) {
        Some(name) => format!("{} {name}", holder.endpoint),
        None => holder.endpoint.to_string(),
    };
    holders.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The verdict, and what is wrong.
pub(crate) fn audit(report: &AuditReport) -> String {
    let verdict = if report.ok { "balanced" } else { "NOT BALANCED" };
    let mut text = format!(
        "{verdict}: {} blocks, {} free, {} holds of processes, {} messages waiting\n",
        report.blocks, report.free, report.held, report.queued
    );
    for problem in &report.problems {
        let _ = writeln!(text, "  {problem}"); // writing to a String cannot fail
    }
    text
}

/// Size, use, and one row per block size.
pub(crate) fn info(info: &PoolInfo) -> String {
    let mut text = format!(
        "{} of {} in use in {} blocks; largest block {}; adopted {} times; {} deaths cleaned up after\n",
        bytes(info.bytes_in_use),
        bytes(info.bytes_total),
        info.blocks_in_use,
        bytes(info.block_bytes_max),
        info.adoptions,
        info.deaths
    );
    if !info.classes.is_empty() {
        let mut rows = vec![["BLOCK", "BLOCKS", "IN USE"].map(String::from)];
        rows.extend(
            info.classes.iter().map(|c| [bytes(c.block_bytes), c.blocks.to_string(), c.in_use.to_string()]),
        );
        text.push_str(&table(&rows));
    }
    text
}

/// A size with the largest unit that leaves at least 1, one digit after the point.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| count >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(count) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

/// A span of time in the unit that leaves at most four digits.
pub(crate) fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..100 => format!("{:.1} s", span.as_secs_f64()),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..360_000 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let line: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3 << 19, "1.5 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_for_people() {
        for (ms, text) in
            [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (120_000, "2 min"), (7_200_000, "2 h")]
        {
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
        assert_eq!(time(Duration::from_secs(400_000)), "4 d");
    }

    #[test]
    fn a_block_names_its_holders() {
        let holder = |endpoint, inbox| Holder { endpoint, inbox };
        let row = BlockInfo {
            block: 17,
            generation: 4,
            len: 100,
            class_bytes: 128,
            holders: vec![holder(2, false), holder(3, true), holder(9, false)],
        };
        let vas = serde_json::json!({
            "endpoint": 2, "incarnation": 0, "pid": 7, "uid": 0, "name": "vas", "inbox": null, "read_only": true,
            "connected": false, "receiving": true, "blocks_held": 0, "bytes_held": 0, "queued": 0,
        });
        let vas: Member = serde_json::from_value(vas).unwrap();
        assert_eq!((kind(&vas), state(&vas)), ("reader", "silent"));
        let text = blocks(&[row], &[vas]);
        assert_eq!(
            text,
            "BLOCK  SIZE   LENGTH  GENERATION  HELD BY   UNREAD BY\n17     128 B  100     4           2 vas, 9  3\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [["A", "LONG"].map(String::from), ["12345", "x"].map(String::from)];
        assert_eq!(table(&rows), "A      LONG\n12345  x\n");
    }
}
