//! The table and the JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::stats::Summary;

/// What was promised.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Ours ÷ reference at most this.
    Ratio(f64),
    /// Ours at most this, in the row's unit.
    AtMost(f64),
    /// Nothing: a figure to read beside the others.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which case it belongs to: the name for `--only`.
    pub case: &'static str,
    /// What was measured.
    pub what: String,
    /// Unit of `ours` and `reference`.
    pub unit: &'static str,
    /// Baton.
    pub ours: Summary,
    /// The other one, and its name.
    pub reference: Option<(String, Summary)>,
    /// Paired by round.
    pub ratio: Option<Summary>,
    /// What was promised.
    pub target: Target,
    /// Whether the median keeps it.
    pub met: Option<bool>,
    /// What bounds a figure, or how it was made.
    pub note: String,
}

impl Row {
    /// A figure against a reference of the same rounds.
    pub fn versus(
        (case, what, unit): (&'static str, String, &'static str),
        ours: &[f64],
        (name, theirs): (&str, &[f64]),
        target: Target,
    ) -> Option<Self> {
        let ratio = Summary::ratio(ours, theirs);
        Some(Self {
            reference: Some((name.to_owned(), Summary::of(theirs)?)),
            met: target.is_met(Summary::of(ours)?.median, ratio.as_ref().map(|r| r.median)),
            ratio,
            ..Self::alone((case, what, unit), ours, target)?
        })
    }

    /// A figure by itself.
    pub fn alone(
        (case, what, unit): (&'static str, String, &'static str),
        ours: &[f64],
        target: Target,
    ) -> Option<Self> {
        let ours = Summary::of(ours)?;
        let met = target.is_met(ours.median, None);
        Some(Self { case, what, unit, ours, reference: None, ratio: None, target, met, note: String::new() })
    }

    /// Adds what a reader must know.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Target {
    fn is_met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::Ratio(most) => ratio.map(|ratio| ratio <= most),
            Self::AtMost(most) => Some(ours <= most),
            Self::None => None,
        }
    }
}

/// One curve of a plot.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Which case.
    pub case: &'static str,
    /// What it shows, in nanoseconds.
    pub what: String,
    /// Over what.
    pub axis: &'static str,
    /// x, y pairs.
    pub points: Vec<(f64, f64)>,
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Version of Baton's crates.
    pub version: &'static str,
    /// `quick` or `full`.
    pub form: &'static str,
    /// The lines.
    pub rows: Vec<Row>,
    /// The plots' points.
    pub series: Vec<Series>,
    /// Cases that could not be measured, and why.
    pub failed: Vec<(String, String)>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let Machine { processor, cores, kernel, load } = &self.machine;
        let _ = writeln!(
            text,
            "{processor}, {cores} cores, Linux {kernel}, load at start {load:.2} ({} run)",
            self.form
        );
        if self.machine.is_busy() {
            let _ = writeln!(
                text,
                "The machine is busy: figures are larger than on a quiet one. Ratios are paired by round and suffer less."
            );
        }
        let _ = writeln!(
            text,
            "\n{:<52} {:>11} {:>11}  {:<24} {:>22}  target",
            "", "ours", "reference", "", "ratio (95 %)"
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.line());
        }
        let notes: Vec<&Row> = self.rows.iter().filter(|row| !row.note.is_empty()).collect();
        if !notes.is_empty() {
            text.push('\n');
        }
        for row in notes {
            let _ = writeln!(text, "· {}: {}", row.what, row.note);
        }
        for (case, why) in &self.failed {
            let _ = writeln!(text, "! {case} was not measured: {why}");
        }
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let (name, reference) = match &self.reference {
            Some((name, summary)) => (name.as_str(), figure(summary.median, self.unit)),
            None => ("", String::new()),
        };
        let ratio = self
            .ratio
            .as_ref()
            .map(|r| format!("{} ({}–{})", short(r.median), short(r.low), short(r.high)))
            .unwrap_or_default();
        let target = match (self.target, self.met) {
            (Target::None, _) => String::new(),
            (Target::Ratio(most), met) => format!("≤ {most} {}", verdict(met)),
            (Target::AtMost(most), met) => format!("≤ {} {}", figure(most, self.unit), verdict(met)),
        };
        let ours = figure(self.ours.median, self.unit);
        format!("{:<52} {ours:>11} {reference:>11}  {name:<24} {ratio:>22}  {target}", self.what)
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not known",
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ns" if value >= 1e6 => format!("{:.2} ms", value / 1e6),
        "ns" if value >= 1e4 => format!("{:.1} µs", value / 1e3),
        "ns" if value >= 100.0 => format!("{value:.0} ns"),
        "ns" => format!("{value:.1} ns"),
        "B" if value >= 1e6 => format!("{:.1} MB", value / 1e6),
        "" => short(value),
        unit => format!("{} {unit}", short(value)),
    }
}
