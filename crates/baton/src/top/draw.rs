//! The screen of `baton top`, at any size: what does not fit is left out, columns from the least important.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row as TableRow, Table, TableState};

use super::app::App;
use super::columns::{self, Column};
use super::feed::Row;
use super::headline;

const KEYS: &str = "q quit  s sort  r reverse  p pause  ↑↓ move  ? help";

const HELP: &str = "\
HELD, BYTES  blocks it holds, a few spare ones included
IN/s, OUT/s  messages received and sent per second
QUEUE        unread messages / room in its inbox
WAITS        times it waited for room or memory
DROPS        own unread messages replaced by newer ones
OLDEST       how long it is seen to hold its oldest block
STATE        ok, silent (not heard of since the daemon
             was restarted), closed (hung up, but lives)

s sort by the next column   r reverse   p pause
arrows, page keys, home, end: move      q quit
any key closes this help";

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    // The table gets what is left; on a very low terminal the least important lines go first.
    let line = |wanted: bool| Constraint::Length(u16::from(wanted));
    let tall = area.height >= 8;
    let parts: [Rect; 5] = Layout::vertical([
        line(tall),
        line(area.height >= 2),
        line(tall || app.away.is_some() || app.note.is_some()),
        Constraint::Min(0),
        line(tall),
    ])
    .areas(area);
    frame.render_widget(title(app), parts[0]);
    frame.render_widget(pool(app), parts[1]);
    frame.render_widget(news(app), parts[2]);
    table(frame, app, parts[3]);
    frame.render_widget(Line::styled(KEYS, Modifier::DIM), parts[4]);
    if app.help {
        help(frame, area);
    }
}

fn title(app: &App) -> Line<'_> {
    let mut spans = vec![Span::styled("baton top ", Modifier::BOLD), Span::raw(app.uri.as_str())];
    if app.paused {
        spans.push(Span::styled("  paused, p goes on", Color::Yellow));
    }
    Line::from(spans)
}

fn pool(app: &App) -> Line<'static> {
    let Some(sample) = &app.sample else { return Line::raw("waiting for the first sample") };
    let full = sample.pool.bytes_in_use.saturating_mul(10) >= sample.pool.bytes_total.saturating_mul(9);
    Line::styled(headline(sample), if full { Style::from(Color::Red) } else { Style::new() })
}

fn news(app: &App) -> Line<'static> {
    match (&app.away, &app.note) {
        (Some((since, error)), _) => {
            let text = format!("no answer for {} s, trying on: {error}", since.as_secs());
            Line::styled(text, Color::Red)
        }
        (None, Some((note, _))) => Line::styled(note.clone(), Color::Yellow),
        (None, None) => Line::default(),
    }
}

fn table(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.rows();
    let shown = columns::fitting(&rows, area.width);
    let head = shown.iter().map(|(column, _)| {
        let arrow = if app.reverse { "▲" } else { "▼" };
        let mark = if *column == app.sort { arrow } else { "" };
        Cell::from(format!("{}{mark}", column.title()))
    });
    let body = rows.iter().map(|row| {
        TableRow::new(
            shown.iter().map(|(column, _)| Cell::from(column.text(row)).style(colour(*column, row))),
        )
    });
    let widths = shown.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(body, widths)
        .header(TableRow::new(head).style(Modifier::BOLD))
        .column_spacing(2)
        .row_highlight_style(Modifier::REVERSED);
    let selected = (!rows.is_empty()).then(|| app.selected.min(rows.len() - 1));
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

/// What needs a look stands out.
fn colour(column: Column, row: &Row) -> Style {
    let m = &row.member;
    match column {
        Column::State if !m.receiving => Color::Red.into(),
        Column::State if !m.connected => Color::Yellow.into(),
        Column::Queue if m.inbox_capacity > 0 && m.queued >= m.inbox_capacity => Color::Red.into(),
        Column::Bytes if m.quota_bytes > 0 && m.bytes_held >= m.quota_bytes => Color::Red.into(),
        _ => Style::new(),
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (60.min(area.width), 14.min(area.height));
    let at = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(HELP).style(Modifier::REVERSED), at);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::app::tests::app;

    fn drawn(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn no_size_is_too_small_or_too_large() {
        let mut app = app(&["camera", "judge", "a-rather-long-name-of-a-process"]);
        for help in [false, true] {
            app.help = help;
            for (width, height) in [(1, 1), (2, 1), (1, 9), (4, 4), (30, 8), (80, 24), (300, 3), (20, 100)] {
                drawn(&app, width, height);
            }
        }
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters() {
        let app = app(&["camera"]);
        let (wide, narrow) = (drawn(&app, 120, 10), drawn(&app, 36, 10));
        for title in ["PID", "KIND", "WAITS", "OLDEST", "NAME", "BYTES▼"] {
            assert!(wide.contains(title), "{title}: {wide}");
        }
        assert!(narrow.contains("NAME") && narrow.contains("BYTES▼") && !narrow.contains("KIND"), "{narrow}");
        assert!(wide.contains("pool 512.0 KiB of 1.0 MiB in use (50 %)"), "{wide}");
    }
}
