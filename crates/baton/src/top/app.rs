//! What the screen shows and how keys change it. No terminal in here: all of it is tested with plain values.
//!
//! ```text
//!            p                     ?
//!   live ◀──────▶ paused   table ◀───▶ help        q, Esc (in the table), Ctrl-C: end
//! ```

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::columns::Column;
use super::feed::{Row, Sample, Update};

/// Rows that a page key moves by.
const PAGE: usize = 10;

/// Samples that a note about the daemon stays on the screen for.
const NOTE_SAMPLES: u32 = 10;

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) uri: String,
    pub(crate) sample: Option<Box<Sample>>,
    /// Samples taken, shown or not.
    pub(crate) samples: u64,
    pub(crate) note: Option<(String, u32)>,
    pub(crate) away: Option<(Duration, String)>,
    pub(crate) sort: Column,
    pub(crate) reverse: bool,
    pub(crate) paused: bool,
    pub(crate) help: bool,
    pub(crate) selected: usize,
}

impl App {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            sample: None,
            samples: 0,
            note: None,
            away: None,
            sort: Column::Bytes,
            reverse: false,
            paused: false,
            help: false,
            selected: 0,
        }
    }

    /// Takes what the feed found. While paused the picture stays, but not what is told about the daemon.
    pub(crate) fn update(&mut self, update: Update) {
        match update {
            Update::Sample(mut sample) => {
                self.samples += 1;
                self.away = None;
                match sample.note.take() {
                    Some(note) => self.note = Some((note, NOTE_SAMPLES)),
                    None => {
                        self.note = self.note.take().and_then(|(note, n)| Some((note, n.checked_sub(1)?)))
                    }
                }
                if !self.paused || self.sample.is_none() {
                    self.sample = Some(sample);
                }
            }
            Update::Away { since, error } => self.away = Some((since, error)),
        }
    }

    /// The rows in the order chosen.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.sample.iter().flat_map(|sample| &sample.members).collect();
        rows.sort_by(|a, b| self.sort.order(a, b));
        if self.reverse {
            rows.reverse();
        }
        rows
    }

    /// Obeys a key; false: the end.
    pub(crate) fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return true;
        }
        let last = self.sample.as_ref().map_or(0, |sample| sample.members.len()).saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('q') => return false,
            KeyCode::Esc if !self.help => return false,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            _ if self.help => self.help = false,
            KeyCode::Char('s') => self.sort = self.sort.following(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Up => self.selected = self.selected.min(last).saturating_sub(1),
            KeyCode::Down => self.selected += 1,
            KeyCode::PageUp => self.selected = self.selected.min(last).saturating_sub(PAGE),
            KeyCode::PageDown => self.selected += PAGE,
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ => {}
        }
        self.selected = self.selected.min(last);
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A screen with members of these names; the n-th has n × 100 bytes and the kth-last rate.
    pub(in crate::top) fn app(names: &[&str]) -> App {
        let members: Vec<_> = (1..).zip(names).map(|(n, name)| row(n, name)).collect();
        let sample = serde_json::from_value::<baton_client::PoolInfo>(serde_json::json!({
            "bytes_total": 1 << 20, "bytes_in_use": 1 << 19, "blocks_in_use": 3, "block_bytes_max": 1 << 18,
            "classes": [], "adoptions": 0,
        }));
        let mut app = App::new("un:///run/rmmt.sock");
        app.update(Update::Sample(Box::new(Sample {
            time_unix_ms: 0,
            interval_ms: Some(1000),
            oldest_partial: false,
            note: None,
            pool: sample.unwrap(),
            members,
        })));
        app
    }

    fn row(n: u16, name: &str) -> Row {
        let member = serde_json::from_value(serde_json::json!({
            "endpoint": n, "incarnation": 0, "pid": 1000 + n, "uid": 0, "name": name, "inbox": null,
            "read_only": false, "connected": true, "receiving": true, "blocks_held": n, "bytes_held": n * 100,
            "queued": 0, "inbox_capacity": 64,
        }));
        Row { member: member.unwrap(), in_per_s: Some(10.0 / f64::from(n)), out_per_s: None, oldest_ms: None }
    }

    fn press(app: &mut App, code: KeyCode) -> bool {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn names(app: &App) -> Vec<&str> {
        app.rows().iter().map(|row| row.member.name.as_str()).collect()
    }

    #[test]
    fn rows_are_sorted_as_keys_say() {
        let mut app = app(&["b", "a", "c"]);
        assert_eq!(names(&app), ["c", "a", "b"], "most bytes first");
        press(&mut app, KeyCode::Char('s'));
        assert_eq!((app.sort, names(&app)), (Column::In, vec!["b", "a", "c"]));
        press(&mut app, KeyCode::Char('r'));
        assert_eq!(names(&app), ["c", "a", "b"]);
        app.sort = Column::Name;
        assert_eq!(names(&app), ["c", "b", "a"]);
        for _ in 0..13 {
            press(&mut app, KeyCode::Char('s'));
        }
        assert_eq!(app.sort, Column::Name, "once around");
    }

    #[test]
    fn the_selection_stays_on_the_list() {
        let mut app = app(&["a", "b", "c"]);
        for (key, at) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 2),
            (KeyCode::Down, 2),
            (KeyCode::PageUp, 0),
            (KeyCode::End, 2),
            (KeyCode::Home, 0),
        ] {
            assert!(press(&mut app, key));
            assert_eq!(app.selected, at, "{key:?}");
        }
    }

    #[test]
    fn escape_closes_the_help_first() {
        let mut app = app(&[]);
        assert!(press(&mut app, KeyCode::Char('?')) && app.help);
        assert!(press(&mut app, KeyCode::Esc) && !app.help);
        assert!(!press(&mut app, KeyCode::Esc));
        assert!(!app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    }

    #[test]
    fn a_pause_keeps_the_picture_but_not_the_news() {
        let mut shown = app(&["a"]);
        press(&mut shown, KeyCode::Char('p'));
        let mut next = app(&["a", "b"]).sample.take().unwrap();
        next.note = Some("restarted".into());
        shown.update(Update::Sample(next));
        assert_eq!((names(&shown), shown.samples), (vec!["a"], 2));
        assert_eq!(shown.note.as_ref().unwrap().0, "restarted");
        shown.update(Update::Away { since: Duration::from_secs(3), error: "no".into() });
        assert_eq!(shown.away.as_ref().unwrap().0.as_secs(), 3);
    }
}
