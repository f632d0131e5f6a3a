//! Answers as text for people.

use std::fmt::Write;

use baton_client::{AuditReport, Member, PoolInfo};

/// One row per member.
pub fn members(members: &[Member]) -> String {
    let mut rows =
        vec![["ID", "PID", "NAME", "INBOX", "ACCESS", "STATE", "HELD", "BYTES", "QUEUED"].map(String::from)];
    rows.extend(members.iter().map(|m| {
        let state = match (m.receiving, m.connected) {
            (false, _) => "closed",
            (true, true) => "ok",
            (true, false) => "silent",
        };
        [
            m.endpoint.to_string(),
            m.pid.to_string(),
            m.name.clone(),
            m.inbox.clone().unwrap_or_else(|| "-".into()),
            if m.read_only { "read" } else { "write" }.into(),
            state.into(),
            m.blocks_held.to_string(),
            bytes(m.bytes_held),
            m.queued.to_string(),
        ]
    }));
    if members.is_empty() {
        return "nobody is attached\n".into();
    }
    table(&rows)
}

/// The verdict, and what is wrong.
pub fn audit(report: &AuditReport) -> String {
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
pub fn info(info: &PoolInfo) -> String {
    let mut text = format!(
        "{} of {} in use in {} blocks; largest block {}; adopted {} times\n",
        bytes(info.bytes_in_use),
        bytes(info.bytes_total),
        info.blocks_in_use,
        bytes(info.block_bytes_max),
        info.adoptions
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
fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| count >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(count) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
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
    fn columns_line_up() {
        let rows = [["A", "LONG"].map(String::from), ["12345", "x"].map(String::from)];
        assert_eq!(table(&rows), "A      LONG\n12345  x\n");
    }
}
