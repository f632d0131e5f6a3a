//! Names of members and inboxes.

use serde::{Deserialize, Serialize};

/// Longest name in bytes.
pub const NAME_LEN_MAX: usize = 63;

/// A name that can be printed in a log line and typed on a command line: 1 to 63 letters, digits or `. _ - : / @`.
///
/// A peer's bytes become one only by passing this check, so a name never breaks a log line or a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a string is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: write 1 to 63 letters, digits or . _ - : / @")]
pub struct NameError(pub String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let fits = (1..=NAME_LEN_MAX).contains(&text.len());
        let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/@".contains(&b));
        if fits && clean { Ok(Self(text)) } else { Err(NameError(text.chars().take(NAME_LEN_MAX).collect())) }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
