//! The schema, its version, and the way from older ones.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::StoreError;

/// `PRAGMA application_id` of our files: "AITS".
const APPLICATION: i64 = 0x4149_5453;

/// How long to wait for the lock of a predecessor that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Step `n` leads from version `n` to `n + 1`. A step that was released is never changed; a new one is appended.
const STEPS: [&str; 1] = ["
    CREATE TABLE task (
        stream     INTEGER PRIMARY KEY AUTOINCREMENT CHECK (stream BETWEEN 1 AND 4294967295),
        id         TEXT    NOT NULL UNIQUE,
        url        TEXT    NOT NULL,
        pace       TEXT    NOT NULL CHECK (pace IN ('realtime', 'fast')),
        repeat     INTEGER NOT NULL CHECK (repeat IN (0, 1)),
        detect_hz  REAL    NOT NULL,
        created_at TEXT    NOT NULL,
        intent     TEXT    NOT NULL CHECK (intent IN ('run', 'stopped', 'ended', 'failed')),
        reason     TEXT
    ) STRICT;
"];

/// Locks, checks and, if need be, migrates the file behind a fresh connection.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    try_prepare(connection, path).unwrap_or_else(|error| Err(explained(error, path)))
}

fn try_prepare(connection: &mut Connection, path: &Path) -> rusqlite::Result<Result<(), StoreError>> {
    // An exclusive lock from the first read on: two processes that open sources for one list of tasks would fight.
    connection.busy_timeout(LOCK_PATIENCE)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let number = |connection: &Connection, name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
    };
    let application = number(connection, "application_id")?;
    let version = number(connection, "user_version")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    let path = path.to_owned();
    if !fresh && application != APPLICATION {
        return Ok(Err(StoreError::Foreign { path }));
    }
    let known = STEPS.len() as i64;
    if version > known {
        return Ok(Err(StoreError::Newer { path, found: version, known }));
    }
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Ok(Err(StoreError::Damaged { path, detail: check }));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A write of nothing, so that the lock is taken and an unwritable disk is noticed now.
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", known)?;
    change.commit()?;
    Ok(Ok(()))
}

fn explained(error: rusqlite::Error, path: &Path) -> StoreError {
    let path = path.to_owned();
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, detail },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path },
        _ => StoreError::Unusable { path, detail },
    }
}
