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
//!
//! [[admit_ip]]                # classic clients over ip://; without such a rule whoever reaches the address may come
//! net = "127.0.0.0/8"         # an address or a network
//! quota = "64MiB"             # what all clients at one address hold together: their pids are only claims
//! connections = 16            # that all clients at one address have together
//! ```
//!
//! A flag counts more than the file. What the file does not know is refused with line and column.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::admission::{Grant, IpGrant, IpRule, Net, Policy, Rule};
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
    admit_ip: Vec<AdmitIp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Admit {
    uid: Option<u32>,
    gid: Option<u32>,
    access: Access,
    quota: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmitIp {
    #[serde(deserialize_with = "net")]
    net: Net,
    quota: Option<Size>,
    connections: Option<NonZeroUsize>,
}

fn net<'de, D: Deserializer<'de>>(from: D) -> Result<Net, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
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
pub(crate) fn settle(args: &Args) -> Result<(Args, Policy), ConfigError> {
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
    let ip_grant = |own: Option<Size>, connections: Option<NonZeroUsize>| IpGrant {
        quota: size(own).unwrap_or(quota),
        connections: connections.map_or(0, NonZeroUsize::get),
    };
    let ip_rules = file
        .admit_ip
        .into_iter()
        .map(|AdmitIp { net, quota, connections }| IpRule { net, grant: ip_grant(quota, connections) })
        .collect();
    Ok((args, Policy::new(rules, ip_rules, ip_grant(None, None))))
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

    fn settled(text: &str, change: impl FnOnce(&mut Args)) -> Result<(Args, Policy), ConfigError> {
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
                    [[admit]]\nuid = 7\naccess = \"read\"\n[[admit]]\ngid = 8\naccess = \"write\"\nquota = \"1MiB\"\n\
                    [[admit_ip]]\nnet = \"127.0.0.1\"\nconnections = 4\n";
        let (args, policy) = settled(text, |args| args.size = Some(1 << 20)).unwrap();
        assert_eq!(
            (args.listen[0].as_str(), args.size, args.max_block),
            ("un:///x", Some(1 << 20), Some(1 << 20))
        );
        assert_eq!(args.shm_name.as_deref(), Some("/a"));
        assert_eq!(policy.grant(7, 8), Some(Grant { writes: false, quota: 2 << 20 }));
        assert_eq!(policy.grant(9, 8), Some(Grant { writes: true, quota: 1 << 20 }));
        let local = policy.admit_ip("127.0.0.1".parse().unwrap());
        assert_eq!(local, Some(IpGrant { quota: 2 << 20, connections: 4 }));
        assert_eq!(policy.admit_ip("127.0.0.2".parse().unwrap()), None);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, says) in [
            ("sise = \"1GiB\"", "line 1"),
            ("size = \"much\"", "512MiB"),
            ("[[admit]]\naccess = \"read\"", "uid"),
            ("[[admit]]\nuid = 1\naccess = \"all\"", "line 3"),
            ("[[admit_ip]]\nnet = \"everywhere\"", "line 2"),
            ("[[admit_ip]]\nnet = \"::1\"\nconnections = 0", "line 3"),
        ] {
            let error = settled(text, |_| {}).unwrap_err().to_string();
            assert!(error.contains("--config") && error.contains(says), "{error}");
        }
        assert!(settled("", |args| args.config = Some("/nowhere/x".into())).is_err());
    }
}
