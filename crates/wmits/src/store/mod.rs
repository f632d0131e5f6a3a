//! Tasks on disk: one SQLite file, the truth about what shall run.
//!
//! ```text
//!   open ──▶ ours? ──yes──▶ this version? ──yes──▶ open (locked for this process)
//!              │no             │older: migrate, one transaction a step
//!              ▼               └newer ▼
//!        refused, untouched     refused, untouched
//! ```
//!
//! Every change is one transaction with FULL synchronisation in WAL mode: after `kill -9` or a power cut the file shows
//! either all of a change or nothing. A damaged file, one of another program, or one in use is refused with a sentence
//! and left as it is. Whole addresses of sources, with passwords, stand in this file only (mode 0600).

mod schema;

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aits_orders::{Pace, StartTask, StreamId};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params};

/// What a task shall do, and what became of it for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Intent {
    /// It shall run.
    Run,
    /// It was stopped by order.
    Stopped,
    /// Its file was read to the end.
    Ended,
    /// It cannot run; the sentence says why.
    Failed(String),
}

/// One row.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// The stream's number; never given twice.
    pub stream: StreamId,
    /// The task's id.
    pub id: String,
    /// The source, with credentials.
    pub url: String,
    /// How fast files are read.
    pub pace: Pace,
    /// Whether files are read again and again.
    pub repeat: bool,
    /// Frames judged per second, at most.
    pub detect_hz: f64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// What it shall do.
    pub intent: Intent,
}

impl Record {
    /// Whether an order asks for exactly this task.
    pub fn same_order(&self, order: &StartTask) -> bool {
        self.url == order.url
            && self.pace == order.pace
            && self.repeat == order.repeat
            && self.detect_hz == order.detect_hz
    }
}

/// Why the store cannot be used, or a change not be made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created, read or written.
    #[error(
        "the task database {path} cannot be opened for writing: {detail}; give a file in a writable directory with --db (of `aits up`: --data)"
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the system or SQLite said.
        detail: String,
    },
    /// Another process has it open.
    #[error(
        "the task database {path} is in use by another wmits; end that one or give another file with --db (of `aits up`: --data)"
    )]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Not a database, or a broken one.
    #[error(
        "the task database {path} is damaged or no database ({detail}); nothing was changed: move it away, or restore a copy"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// A database of another program.
    #[error(
        "{path} is a database of another program; nothing was changed: give another file with --db (of `aits up`: --data)"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error(
        "the task database {path} has schema {found}, this program knows up to {known}; nothing was changed: use the newer program"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Somebody took the file away: what would be written now, nobody would find after a restart.
    #[error(
        "the task database {path} was deleted or replaced while it was in use, so nothing can be kept: put it back, or restart the system"
    )]
    Gone {
        /// Which file.
        path: PathBuf,
    },
    /// A change could not be written (disk full, disk broken). The task is as it was.
    #[error("the task database could not be changed: {0}")]
    Write(#[source] rusqlite::Error),
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Device and number of the file that is open.
    file: (u64, u64),
}

impl Store {
    /// Opens or creates the file, and brings an older schema up to date.
    ///
    /// # Errors
    /// See [`StoreError`]; on any error the file's contents are as before.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable = |detail: String| StoreError::Unusable { path: path.to_owned(), detail };
        // SQLite would create the file with the umask's mode; passwords need less.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unusable(error.to_string()))?;
        let file = file.metadata().map_err(|error| unusable(error.to_string()))?;
        let mut connection = Connection::open(path).map_err(|error| unusable(error.to_string()))?;
        schema::prepare(&mut connection, path)?;
        if connection.is_readonly("main").unwrap_or(true) {
            return Err(unusable("it is read-only".into()));
        }
        Ok(Self { connection, path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    /// All tasks, in the order in which they were created.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, StoreError> {
        let mut statement =
            self.connection.prepare("SELECT * FROM task ORDER BY stream").map_err(StoreError::Write)?;
        let rows = statement.query_map([], record).map_err(StoreError::Write)?;
        rows.collect::<Result<_, _>>().map_err(StoreError::Write)
    }

    /// Adds a task that shall run. `order.id` must be free; without one, a name is made from the stream's number.
    ///
    /// # Errors
    /// [`StoreError::Write`], [`StoreError::Gone`]; nothing was added.
    pub fn add(&mut self, order: &StartTask, created_at: &str) -> Result<Record, StoreError> {
        self.still_there()?;
        self.try_add(order, created_at).map_err(StoreError::Write)
    }

    /// SQLite goes on writing into a file that has no name any more.
    fn still_there(&self) -> Result<(), StoreError> {
        let found = std::fs::metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == self.file) {
            return Ok(());
        }
        Err(StoreError::Gone { path: self.path.clone() })
    }

    fn try_add(&mut self, order: &StartTask, created_at: &str) -> rusqlite::Result<Record> {
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last: Option<i64> = change
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'task'", [], |row| row.get(0))
            .optional()?;
        let id = match &order.id {
            Some(id) => id.clone(),
            None => free_id(&change, last.unwrap_or(0) + 1)?,
        };
        change.execute(
            "INSERT INTO task (id, url, pace, repeat, detect_hz, created_at, intent)
             VALUES (:id, :url, :pace, :repeat, :detect_hz, :created_at, 'run')",
            named_params! {
                ":id": id, ":url": order.url, ":pace": pace_name(order.pace), ":repeat": order.repeat,
                ":detect_hz": order.detect_hz, ":created_at": created_at,
            },
        )?;
        let added = change.query_row("SELECT * FROM task WHERE id = ?1", [&id], record)?;
        change.commit()?;
        Ok(added)
    }

    /// Changes what a task shall do.
    ///
    /// # Errors
    /// [`StoreError::Write`], [`StoreError::Gone`]; nothing was changed.
    pub fn set_intent(&mut self, stream: StreamId, intent: &Intent) -> Result<(), StoreError> {
        self.still_there()?;
        let (name, reason) = match intent {
            Intent::Run => ("run", None),
            Intent::Stopped => ("stopped", None),
            Intent::Ended => ("ended", None),
            Intent::Failed(reason) => ("failed", Some(reason)),
        };
        self.connection
            .execute(
                "UPDATE task SET intent = :intent, reason = :reason WHERE stream = :stream",
                named_params! { ":intent": name, ":reason": reason, ":stream": stream.0 },
            )
            .map_err(StoreError::Write)?;
        Ok(())
    }

    /// Takes a task out. Its stream number is not given again.
    ///
    /// # Errors
    /// [`StoreError::Write`], [`StoreError::Gone`]; it is still there.
    pub fn delete(&mut self, stream: StreamId) -> Result<(), StoreError> {
        self.still_there()?;
        self.connection
            .execute("DELETE FROM task WHERE stream = ?1", [stream.0])
            .map_err(StoreError::Write)?;
        Ok(())
    }
}

fn free_id(connection: &Connection, number: i64) -> rusqlite::Result<String> {
    let mut id = format!("task-{number}");
    let mut suffix = 1;
    while connection.query_row("SELECT 1 FROM task WHERE id = ?1", [&id], |_| Ok(())).optional()?.is_some() {
        suffix += 1;
        id = format!("task-{number}-{suffix}");
    }
    Ok(id)
}

fn pace_name(pace: Pace) -> &'static str {
    match pace {
        Pace::Realtime => "realtime",
        Pace::Fast => "fast",
    }
}

/// The CHECKs of the schema leave no other words than these.
fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let intent: String = row.get("intent")?;
    let reason: Option<String> = row.get("reason")?;
    let pace: String = row.get("pace")?;
    Ok(Record {
        stream: StreamId(row.get("stream")?),
        id: row.get("id")?,
        url: row.get("url")?,
        pace: if pace == "fast" { Pace::Fast } else { Pace::Realtime },
        repeat: row.get("repeat")?,
        detect_hz: row.get("detect_hz")?,
        created_at: row.get("created_at")?,
        intent: match intent.as_str() {
            "stopped" => Intent::Stopped,
            "ended" => Intent::Ended,
            "failed" => Intent::Failed(reason.unwrap_or_default()),
            _ => Intent::Run,
        },
    })
}
