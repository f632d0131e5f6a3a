//! Values with units and bounds. Their errors become the message at the caret.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};

/// Bytes, written as `"512MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        baton_rmmt::parse_size(&text).map(Self).map_err(D::Error::custom)
    }
}

/// `HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listen(pub(crate) String);

impl Default for Listen {
    fn default() -> Self {
        Self("127.0.0.1:8080".into())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match parts.and_then(|(_, port)| port.parse::<u16>().ok()) {
            // The page would be somewhere else after each restart of the gateway.
            Some(0) => Err(format!("`{text}` leaves the port open; name one, as 127.0.0.1:8080")),
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(format!("`{text}` is no HOST:PORT, as 127.0.0.1:8080")),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A number of processes.
pub(super) fn instances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(|| D::Error::custom(format!("{number} processes are not possible, write 1 to 64")))
}

/// The default of a task's `detect_hz`, as in an order by RPC.
pub(super) fn detect_hz() -> f64 {
    5.0
}
