//! What can go wrong with a source, as sentences for people.
//!
//! Every sentence says what is wrong and what to do; none carries credentials (see [`redact`](crate::redact())).

use crate::ffi::Code;
use crate::memory::NoMemory;

/// Why a source could not be opened. `url` is always without credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentences say what the variants mean; the fields are the words in them")]
pub enum OpenError {
    #[error(
        "there is no file {url}; check the path (services see the paths of the machine that they run on)"
    )]
    Missing { url: String },
    #[error("{url} is no file but {what}; name a video file")]
    NotAFile { url: String, what: &'static str },
    #[error("{url} may not be read by this user; change its permissions")]
    Denied { url: String },
    #[error("{url} is empty; copy it again")]
    Empty { url: String },
    #[error(
        "{url} does not contain a video in any format that FFmpeg knows; check that it is the right file"
    )]
    NotAVideo { url: String },
    #[error(
        "{url} is an MP4 file without its index (moov): it was cut off, or is still being recorded; copy it again, or record as MKV or fragmented MP4"
    )]
    NoIndex { url: String },
    #[error("{url} has no video in it, only sound or data; name a source with pictures")]
    NoVideo { url: String },
    #[error("{url} is coded as {codec}, which this FFmpeg cannot decode; convert it to H.264 or H.265")]
    UnsupportedCodec { url: String, codec: String },
    #[error("nobody accepts connections at {url}; check address and port, and that the camera is on")]
    Refused { url: String },
    #[error(
        "{url} did not answer within {seconds} s; check the address, the network and that the camera is on"
    )]
    Timeout { url: String, seconds: u64 },
    #[error("the host of {url} cannot be reached ({reason}); check the address and the network")]
    Unreachable { url: String, reason: String },
    #[error(
        "{url} wants a user name and a password, or other ones; write them as scheme://user:password@host/…"
    )]
    Unauthorized { url: String },
    #[error("the server of {url} knows no stream of that path; check the path")]
    NoSuchStream { url: String },
    #[error(
        "{url} begins with a scheme that is not read here; use a path, file://, or one of {schemes}",
        schemes = crate::source::SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
    )]
    UnknownScheme { url: String },
    #[error("{url} answered, but not with a video stream; check scheme, port and path")]
    NotAStream { url: String },
    #[error("opening {url} was stopped")]
    Stopped { url: String },
    #[error("{url} could not be opened: {reason}; try to play it with ffplay on this machine")]
    Other { url: String, reason: String },
}

/// Why reading ended before the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentences say what the variants mean; the fields are the words in them")]
pub enum ReadError {
    #[error("{url} sent nothing for {seconds} s; check the camera and the network")]
    Timeout { url: String, seconds: u64 },
    #[error("the connection to {url} was lost ({reason}); check the camera and the network")]
    Lost { url: String, reason: String },
    #[error("{url} is damaged and cannot be read on ({reason}); copy or record it again")]
    Damaged { url: String, reason: String },
    #[error("{url} cannot be played again from its beginning ({reason}); play it once, or convert it to MP4")]
    NoRewind { url: String, reason: String },
    #[error("pictures of {url} do not fit into the pool: {source}")]
    Memory { url: String, source: NoMemory },
    #[error("reading {url} was stopped")]
    Stopped { url: String },
}

/// What is known when opening failed.
pub(crate) struct Attempt<'a> {
    /// Redacted.
    pub(crate) url: &'a str,
    pub(crate) is_network: bool,
    /// The file begins like an MP4.
    pub(crate) looks_like_mp4: bool,
    pub(crate) stopped: bool,
    /// The time for opening was over. FFmpeg has many codes for what it makes of that.
    pub(crate) too_late: bool,
    pub(crate) timeout_seconds: u64,
}

impl Attempt<'_> {
    pub(crate) fn explain(&self, code: Code) -> OpenError {
        use ffmpeg_sys_next as ff;
        let url = self.url.to_owned();
        match (code.0, code.errno()) {
            _ if self.stopped => OpenError::Stopped { url },
            _ if self.too_late => OpenError::Timeout { url, seconds: self.timeout_seconds },
            (_, Some(ff::ETIMEDOUT)) => OpenError::Timeout { url, seconds: self.timeout_seconds },
            (_, Some(ff::ENOENT)) => OpenError::Missing { url },
            (_, Some(ff::EACCES | ff::EPERM)) if !self.is_network => OpenError::Denied { url },
            (_, Some(ff::EISDIR)) => OpenError::NotAFile { url, what: "a directory" },
            (_, Some(ff::ECONNREFUSED)) => OpenError::Refused { url },
            (ff::AVERROR_HTTP_UNAUTHORIZED | ff::AVERROR_HTTP_FORBIDDEN, _) => {
                OpenError::Unauthorized { url }
            }
            (ff::AVERROR_HTTP_NOT_FOUND, _) => OpenError::NoSuchStream { url },
            (ff::AVERROR_PROTOCOL_NOT_FOUND, _) => OpenError::UnknownScheme { url },
            // FFmpeg says EIO when a name does not resolve.
            (_, Some(ff::EHOSTUNREACH | ff::ENETUNREACH | ff::EIO)) if self.is_network => {
                OpenError::Unreachable { url, reason: code.text() }
            }
            (ff::AVERROR_INVALIDDATA | ff::AVERROR_EOF, _) | (_, Some(ff::ECONNRESET | ff::EPIPE))
                if self.is_network =>
            {
                OpenError::NotAStream { url }
            }
            (ff::AVERROR_INVALIDDATA | ff::AVERROR_EOF, _) if self.looks_like_mp4 => {
                OpenError::NoIndex { url }
            }
            (ff::AVERROR_INVALIDDATA | ff::AVERROR_EOF, _) => OpenError::NotAVideo { url },
            _ => OpenError::Other { url, reason: code.text() },
        }
    }
}
