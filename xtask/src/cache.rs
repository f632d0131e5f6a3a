//! Where fetched files are kept: outside the tree, found again by every later run.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, at};

/// The cache directory.
pub struct Cache(PathBuf);

impl Cache {
    /// `$AITS_CACHE`, else `$XDG_CACHE_HOME/aits`, else `~/.cache/aits`; made if absent.
    pub fn open() -> Result<Self, Error> {
        let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = from_env("AITS_CACHE")
            .or_else(|| from_env("XDG_CACHE_HOME").map(|d| d.join("aits")))
            .or_else(|| from_env("HOME").map(|d| d.join(".cache/aits")))
            .ok_or_else(|| {
                Error::Check("neither AITS_CACHE nor HOME is set; set AITS_CACHE to a folder".into())
            })?;
        at(&dir, std::fs::create_dir_all(&dir))?;
        Ok(Self(dir))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The inference runtime.
    pub fn runtime(&self) -> PathBuf {
        self.0.join("runtime/libonnxruntime.so")
    }

    /// The default model.
    pub fn model(&self) -> PathBuf {
        self.0.join("models/nanodet.onnx")
    }

    /// The real road clip that the demo plays.
    pub fn clip(&self) -> PathBuf {
        self.0.join("clips/road-cars-truck.mp4")
    }

    /// A second real road clip.
    pub fn second_clip(&self) -> PathBuf {
        self.0.join("clips/road-cars-cyclist.mp4")
    }

    /// An empty directory for a download in progress; removed when dropped.
    pub fn staging(&self, name: &str) -> Result<Staging, Error> {
        let dir = self.0.join(format!(".staging-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        at(&dir, std::fs::create_dir_all(&dir))?;
        Ok(Staging(dir))
    }
}

/// A directory that is removed when it is dropped.
pub struct Staging(PathBuf);

impl Staging {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SHA-256 of a file, in hexadecimal; `None` if there is no such file.
pub fn sha256(path: &Path) -> Result<Option<String>, Error> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return at(path, Err(error)),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = at(path, std::io::Read::read(&mut file, &mut buffer))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Whether the file is there and is the expected one.
pub fn is_good(path: &Path, expected: &str) -> Result<bool, Error> {
    Ok(sha256(path)?.as_deref() == Some(expected))
}

/// Checks `from` and moves it to `to` in one step, so that a half-written file is never found in the cache.
pub fn keep(from: &Path, to: &Path, expected: &str) -> Result<(), Error> {
    match sha256(from)? {
        Some(found) if found == expected => {}
        found => {
            let found = found.unwrap_or_else(|| "none (no such file)".into());
            return Err(Error::Checksum { path: from.into(), found, expected: expected.into() });
        }
    }
    let parent = to.parent().expect("cache files lie in a folder");
    at(parent, std::fs::create_dir_all(parent))?;
    at(to, std::fs::rename(from, to))
}
