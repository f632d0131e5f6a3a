//! What can go wrong, each with the sentence that says what to do.

use std::path::PathBuf;

/// Why a command of xtask failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that must be there is not.
    #[error("`{0}` is not installed; install it and run this command again")]
    NoProgram(String),
    /// A program ended with an error.
    #[error("`{command}` failed ({status}){detail}")]
    Failed { command: String, status: String, detail: String },
    /// System packages are missing and this user may not install them.
    #[error(
        "system packages are missing and this user cannot become root. Run this once, then try again:\n\n    {0}\n"
    )]
    NotRoot(String),
    /// This is no Debian-like system.
    #[error("this machine has no apt; install the equivalents of these Debian packages by hand: {0}")]
    NoApt(String),
    /// A registry did not answer.
    #[error(
        "the {registry} registry cannot be reached or refused `{what}`. Check the network (and the proxy settings of \
         {client}), then run the same command again; what is fetched already is kept.\n{detail}"
    )]
    Registry { registry: &'static str, client: &'static str, what: String, detail: String },
    /// A file is not what it should be.
    #[error(
        "{path} has SHA-256 {found}, expected {expected}; delete it and run again (if it happens again, the package has changed: do not use it)"
    )]
    Checksum { path: PathBuf, found: String, expected: String },
    /// A file system operation failed.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// This processor has no package of the inference runtime.
    #[error("no inference runtime is known for processors of type {0}; x86_64 and aarch64 are supported")]
    Processor(&'static str),
    /// The model could not be converted.
    #[error("converting the model failed: {0}")]
    Model(String),
    /// A check of the system as a whole failed.
    #[error("{0}")]
    Check(String),
}

/// Attaches the path to an I/O error.
pub fn at<T>(path: impl Into<PathBuf>, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Io { path: path.into(), source })
}
