//! Fetching packages with the registries' own clients, with a progress bar that watches the bytes arrive.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, at};
use crate::run::last_lines;

/// A package of a registry.
pub struct Package {
    /// Which registry, for people.
    pub registry: &'static str,
    /// Its client, for people.
    pub client: &'static str,
    /// Name and version, for people.
    pub what: &'static str,
    /// About how many bytes will arrive, for the progress bar.
    pub bytes: u64,
}

impl Package {
    /// Runs the client, whose files all arrive below `staging`, and returns the one file that ends in `suffix`.
    pub fn fetch(&self, command: &mut Command, staging: &Path, suffix: &str) -> Result<PathBuf, Error> {
        let registry_error = |detail: String| Error::Registry {
            registry: self.registry,
            client: self.client,
            what: self.what.into(),
            detail,
        };
        // The clients keep what is under way in their temporary directory: here, where it can be counted and is removed.
        let temp = staging.join("tmp");
        at(&temp, std::fs::create_dir_all(&temp))?;
        let log = staging.join("log");
        let log_file = at(&log, std::fs::File::create(&log))?;
        command.env("TMPDIR", &temp).stdin(Stdio::null());
        command.stdout(at(&log, log_file.try_clone())?).stderr(log_file);
        let mut child =
            command.spawn().map_err(|_| Error::NoProgram(command.get_program().to_string_lossy().into()))?;
        let bar = ProgressBar::new(self.bytes);
        let style = "{msg:32} [{bar:30}] {bytes:>10} of about {total_bytes} {elapsed:>4}";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> "));
        bar.set_message(self.what);
        let status = loop {
            if let Some(status) = at(&log, child.try_wait())? {
                break status;
            }
            bar.set_position(size_below(staging).min(self.bytes));
            std::thread::sleep(Duration::from_millis(100));
        };
        bar.finish_and_clear();
        if !status.success() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(registry_error(last_lines(&said, 6)));
        }
        let files = at(staging, std::fs::read_dir(staging))?;
        let found =
            files.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(suffix));
        let found =
            found.ok_or_else(|| registry_error(format!("the client wrote no file ending in {suffix}")))?;
        eprintln!("fetched {}", self.what);
        Ok(found)
    }
}

fn size_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_below(&entry.path()),
        Ok(_) => entry.metadata().map_or(0, |meta| meta.len()),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
