//! The columns of `baton top`: title, text, order, and which of them a narrow terminal keeps.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::feed::Row;
use crate::show;

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Id,
    Pid,
    Name,
    Kind,
    State,
    Held,
    Bytes,
    In,
    Out,
    Queue,
    Waits,
    Drops,
    Oldest,
}

use Column::{Bytes, Drops, Held, Id, In, Kind, Name, Oldest, Out, Pid, Queue, State, Waits};

/// From left to right.
pub(crate) const ALL: [Column; 13] =
    [Id, Pid, Name, Kind, State, Held, Bytes, In, Out, Queue, Waits, Drops, Oldest];

/// Dropped in this order when the terminal is too narrow; the name stays.
const DISPENSABLE: [Column; 12] = [Id, Kind, Pid, Waits, State, Drops, Oldest, Held, Out, In, Queue, Bytes];

impl Column {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Id => "ID",
            Pid => "PID",
            Name => "NAME",
            Kind => "KIND",
            State => "STATE",
            Held => "HELD",
            Bytes => "BYTES",
            In => "IN/s",
            Out => "OUT/s",
            Queue => "QUEUE",
            Waits => "WAITS",
            Drops => "DROPS",
            Oldest => "OLDEST",
        }
    }

    /// The cell.
    pub(crate) fn text(self, row: &Row) -> String {
        let m = &row.member;
        let rate = |rate: Option<f64>| {
            rate.map_or("-".into(), |rate| format!("{rate:.*}", usize::from(rate < 99.95)))
        };
        match self {
            Id => m.endpoint.to_string(),
            Pid => m.pid.to_string(),
            Name => m.name.clone(),
            Kind => show::kind(m).into(),
            State => show::state(m).into(),
            Held => m.blocks_held.to_string(),
            Bytes => show::bytes(m.bytes_held),
            In => rate(row.in_per_s),
            Out => rate(row.out_per_s),
            Queue => format!("{}/{}", m.queued, m.inbox_capacity),
            Waits => m.waits.to_string(),
            Drops => m.dropped.to_string(),
            Oldest => row.oldest_ms.map_or("-".into(), |ms| show::time(Duration::from_millis(ms))),
        }
    }

    /// Numbers from the largest, words from A; the endpoint's number decides between equals.
    pub(crate) fn order(self, a: &Row, b: &Row) -> Ordering {
        let (m, n) = (&a.member, &b.member);
        let largest = |x: u64, y: u64| Reverse(x).cmp(&Reverse(y));
        let fastest = |x: Option<f64>, y: Option<f64>| y.unwrap_or(-1.0).total_cmp(&x.unwrap_or(-1.0));
        let order = match self {
            Id => Ordering::Equal,
            Pid => m.pid.cmp(&n.pid),
            Name => m.name.cmp(&n.name),
            Kind => show::kind(m).cmp(show::kind(n)),
            State => show::state(m).cmp(show::state(n)),
            Held => largest(m.blocks_held, n.blocks_held),
            Bytes => largest(m.bytes_held, n.bytes_held),
            In => fastest(a.in_per_s, b.in_per_s),
            Out => fastest(a.out_per_s, b.out_per_s),
            Queue => largest(m.queued, n.queued),
            Waits => largest(m.waits, n.waits),
            Drops => largest(m.dropped, n.dropped),
            Oldest => largest(a.oldest_ms.unwrap_or(0), b.oldest_ms.unwrap_or(0)),
        };
        order.then(m.endpoint.cmp(&n.endpoint))
    }

    /// The column that `s` sorts by next.
    pub(crate) fn following(self) -> Self {
        let at = ALL.iter().position(|column| *column == self).unwrap_or(0);
        ALL[(at + 1) % ALL.len()]
    }
}

/// The columns that fit into `width` cells, each with its width (two cells apart).
pub(crate) fn fitting(rows: &[&Row], width: u16) -> Vec<(Column, u16)> {
    let widest = |column: Column| {
        let cells = rows.iter().map(|row| column.text(row).chars().count());
        // One more than the title: the column that is sorted by carries an arrow.
        let cells = cells.chain([column.title().len() + 1]).max().unwrap_or(0);
        (column, u16::try_from(cells).unwrap_or(u16::MAX))
    };
    let mut kept: Vec<_> = ALL.into_iter().map(widest).collect();
    for dispensable in DISPENSABLE {
        let needed: u32 = kept.iter().map(|(_, cells)| u32::from(*cells) + 2).sum();
        if needed <= u32::from(width) + 2 {
            break;
        }
        kept.retain(|(column, _)| *column != dispensable);
    }
    kept
}
