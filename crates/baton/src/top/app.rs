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
