//! The settings file: `--config FILE`, TOML.
//!
//! ```toml
//! listen = ["un:///run/baton/rmmt.sock", "ip://127.0.0.1:7000"]
//! size = "1GiB"
//! max_block = "16MiB"
//! shm_name = "/aits"
//! metrics = "ip://127.0.0.1:9464"
//! quota = "256MiB"            # for whom no rule below names another one
//!
//! [[admit]]                   # the first rule that fits counts; nobody else may attach but our own user and root
//! uid = 1001
//! access = "read"
//! [[admit]]
//! gid = 44
//! access = "write"
//! quota = "64MiB"
//! ```
//!
//! A flag counts more than the file. What the file does not know is refused with line and column.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::admission::{Grant, Rule};
use crate::{Args, parse_size};

/// Why a file is no settings file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("--config {path}: it cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("--config {path}: {reason}", path = path.display())]
    Parse { path: PathBuf, reason: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Vec<String>,
    allow_remote: bool,
    size: Option<Size>,
    max_block: Option<Size>,
    shm_name: Option<String>,
    metrics: Option<String>,
    members_max: Option<u16>,
    inbox_len: Option<u32>,
    quota: Option<Size>,
    admit: Vec<Admit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Admit {
    uid: Option<u32>,
    gid: Option<u32>,
    access: Access,
    quota: Option<Size>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Access {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_size(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The arguments with what the file adds to them, and the rules of admission.
pub(crate) fn settle(args: &Args) -> Result<(Args, Vec<Rule>), ConfigError> {
    let file = match &args.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let size = |size: Option<Size>| size.map(|Size(bytes)| bytes);
    let quota = size(file.quota).unwrap_or(0);
    let mut args = args.clone();
    if args.listen.is_empty() {
        args.listen = file.listen;
    }
    args.allow_remote |= file.allow_remote;
    args.size = args.size.or(size(file.size));
    args.max_block = args.max_block.or(size(file.max_block));
    args.shm_name = args.shm_name.or(file.shm_name);
    args.metrics = args.metrics.or(file.metrics);
    args.members_max = args.members_max.or(file.members_max);
    args.inbox_len = args.inbox_len.or(file.inbox_len);
    let grant = |writes, own: Option<Size>| Grant { writes, quota: size(own).unwrap_or(quota) };
    let mut rules: Vec<_> = file
        .admit
        .into_iter()
        .map(|Admit { uid, gid, access, quota }| Rule {
            uid,
            gid,
            grant: grant(matches!(access, Access::Write), quota),
        })
        .collect();
    let listed = [rustix::process::geteuid().as_raw(), 0].into_iter().chain(args.allow_uid.iter().copied());
    rules.extend(listed.map(|uid| Rule { uid: Some(uid), gid: None, grant: grant(true, None) }));
    Ok((args, rules))
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let wrong = |reason: String| ConfigError::Parse { path: path.to_owned(), reason };
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if file.admit.iter().any(|rule| rule.uid.is_none() && rule.gid.is_none()) {
        return Err(wrong("a rule [[admit]] names a uid, a gid, or both".to_owned()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str, change: impl FnOnce(&mut Args)) -> Result<(Args, Vec<Rule>), ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rmmt.toml");
        std::fs::write(&path, text).unwrap();
        let mut args = Args::new("");
        args.listen.clear();
        args.config = Some(path);
        change(&mut args);
        settle(&args)
    }

    #[test]
    fn a_flag_counts_more_than_the_file() {
        let text = "listen = [\"un:///x\"]\nsize = \"1GiB\"\nmax_block = \"1MiB\"\nshm_name = \"/a\"\nquota = \"2MiB\"\n\
                    [[admit]]\nuid = 7\naccess = \"read\"\n[[admit]]\ngid = 8\naccess = \"write\"\nquota = \"1MiB\"\n";
        let (args, rules) = settled(text, |args| args.size = Some(1 << 20)).unwrap();
        assert_eq!(
            (args.listen[0].as_str(), args.size, args.max_block),
            ("un:///x", Some(1 << 20), Some(1 << 20))
        );
        assert_eq!(args.shm_name.as_deref(), Some("/a"));
        assert_eq!(rules[0].grant, Grant { writes: false, quota: 2 << 20 });
        assert_eq!((rules[1].gid, rules[1].grant), (Some(8), Grant { writes: true, quota: 1 << 20 }));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, says) in [
            ("sise = \"1GiB\"", "line 1"),
            ("size = \"much\"", "512MiB"),
            ("[[admit]]\naccess = \"read\"", "uid"),
            ("[[admit]]\nuid = 1\naccess = \"all\"", "line 3"),
        ] {
            let error = settled(text, |_| {}).unwrap_err().to_string();
            assert!(error.contains("--config") && error.contains(says), "{error}");
        }
        assert!(settled("", |args| args.config = Some("/nowhere/x".into())).is_err());
    }
}
