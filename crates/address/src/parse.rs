//! The text form of an address.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place to listen at or to connect to. It is a claim: nothing says that the host exists or that the path is writable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `ip://HOST:PORT`: TCP.
    Tcp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The port; 0 asks the kernel for a free one.
        port: u16,
    },
    /// `un://PATH`: a Unix stream socket.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
    },
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no scheme.
    #[error("`{0}` does not contain `://`; write ip://HOST:PORT or un://PATH")]
    NoScheme(String),
    /// The scheme is neither `ip` nor `un`.
    #[error("unrecognized protocol `{scheme}` in `{text}`; write ip://HOST:PORT or un://PATH")]
    UnknownScheme {
        /// What stood before `://`.
        scheme: String,
        /// The whole text.
        text: String,
    },
    /// What follows `ip://` is no `HOST:PORT`.
    #[error("could not make an IP address of `{0}`; write ip://HOST:PORT, for example ip://127.0.0.1:7000")]
    BadHostPort(String),
    /// `un://` with nothing after it.
    #[error("`{0}` names no path; write un:///run/NAME.sock")]
    EmptyPath(String),
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| ParseError::NoScheme(text.to_owned()))?;
        match scheme {
            "un" if rest.is_empty() => Err(ParseError::EmptyPath(text.to_owned())),
            "un" => Ok(Address::Unix { path: PathBuf::from(rest) }),
            "ip" => host_and_port(rest).ok_or_else(|| ParseError::BadHostPort(text.to_owned())),
            _ => Err(ParseError::UnknownScheme { scheme: scheme.to_owned(), text: text.to_owned() }),
        }
    }
}

fn host_and_port(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    // `parse` would take "+80"; a port is digits.
    if bare.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Address::Tcp { host: bare.to_owned(), port: port.parse().ok()? })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "ip://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "ip://{host}:{port}"),
            Address::Unix { path } => write!(f, "un://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_to_the_same_address() {
        for text in
            ["ip://127.0.0.1:7000", "ip://[::1]:0", "ip://localhost:65535", "un:///tmp/a.sock", "un://rel"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        let message = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(message("127.0.0.1:7000").contains("not contain `://`"));
        assert!(message("tcp://127.0.0.1:7000").contains("unrecognized protocol `tcp`"));
        assert!(message("un://").contains("names no path"));
        for bad in [
            "ip://",
            "ip://host",
            "ip://:1",
            "ip://h:65536",
            "ip://h:-1",
            "ip://h:+1",
            "ip://::1:5",
            "ip://[::1:5",
        ] {
            assert!(message(bad).contains("IP address"), "{bad}");
        }
    }
}
