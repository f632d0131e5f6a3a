//! How much memory can be taken before the kernel starts to kill.
//!
//! `fallocate` on shared memory under a cgroup's limit does not fail: the kernel kills something of that cgroup, most
//! likely us. So we look first: `MemAvailable` of the host, and limit and use of our memory cgroup *and of each of
//! its ancestors* (each of them can be the tight one), in cgroup v1 and v2. File cache that the kernel can drop
//! (`inactive_file`) counts as free. Others may take memory between the look and the taking: the caller looks again
//! before each large step.
//!
//! Sources: proc_meminfo(5), cgroups(7), the kernel's `Documentation/admin-guide/cgroup-v2.rst` ("memory.max",
//! "memory.current", "memory.stat") and `cgroup-v1/memory.rst`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// What stands in the way of taking more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitedBy {
    /// The machine's memory (`MemAvailable`).
    Host,
    /// The limit of a control group, given by its folder.
    Cgroup(PathBuf),
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitedBy::Host => f.write_str("the machine's memory"),
            LimitedBy::Cgroup(path) => write!(f, "the memory limit of control group {}", path.display()),
        }
    }
}

/// How much can be taken now, and what sets the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMemory {
    /// Bytes.
    pub available: u64,
    /// The tightest bound.
    pub limited_by: LimitedBy,
}

/// The kernel's files could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot find out how much memory is free: {what} of {path}: {source}")]
pub struct HostError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl HostMemory {
    /// Looks now.
    ///
    /// # Errors
    /// [`HostError`] if `/proc/meminfo` cannot be read. Missing cgroup files mean no limit there.
    pub fn now() -> Result<Self, HostError> {
        Self::under(Path::new("/"))
    }

    /// The same with `/proc` and the cgroup folders below another root (for tests).
    fn under(root: &Path) -> Result<Self, HostError> {
        let meminfo = root.join("proc/meminfo");
        let text = std::fs::read_to_string(&meminfo).map_err(|source| HostError {
            what: "cannot read",
            path: meminfo.clone(),
            source,
        })?;
        let available = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .ok_or_else(|| HostError {
                what: "no MemAvailable in",
                path: meminfo,
                source: std::io::ErrorKind::InvalidData.into(),
            })?
            .saturating_mul(1024);
        let mut tightest = HostMemory { available, limited_by: LimitedBy::Host };
        for (folder, version) in cgroup_folders(root) {
            if let Some(room) = version.room(&folder)
                && room < tightest.available
            {
                tightest = HostMemory { available: room, limited_by: LimitedBy::Cgroup(folder) };
            }
        }
        Ok(tightest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// Bytes left in this one group, `None` without a limit.
    fn room(self, folder: &Path) -> Option<u64> {
        let (limit, used, cache) = match self {
            Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.max", "memory.current", "inactive_file"),
        };
        let number = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        let limit = number(limit)?; // "max" of version 2 is no number: no limit
        if limit >= 1 << 62 {
            return None; // version 1 writes "no limit" as the largest page count
        }
        let used = number(used)?;
        let droppable = std::fs::read_to_string(folder.join("memory.stat"))
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix(cache)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
            .unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(droppable)))
    }
}

/// The folder of our memory cgroup and of its ancestors up to the mount point, for each hierarchy that has one.
fn cgroup_folders(root: &Path) -> Vec<(PathBuf, Version)> {
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut folders = Vec::new();
    for group in groups.lines() {
        // "4:memory:/path" (version 1) or "0::/path" (version 2)
        let mut parts = group.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let version = match controllers {
            "" => Version::V2,
            list if list.split(',').any(|c| c == "memory") => Version::V1,
            _ => continue,
        };
        let Some((mount_root, mount_point)) = mounts.lines().find_map(|line| mount_of(line, version)) else {
            continue;
        };
        // In a container the mount may show only a part of the tree; a path outside of it cannot be seen.
        let inside = Path::new(path).strip_prefix(&mount_root).unwrap_or(Path::new(""));
        let inside =
            if inside.components().any(|c| c == Component::ParentDir) { Path::new("") } else { inside };
        let top = root.join(mount_point.strip_prefix("/").unwrap_or(&mount_point));
        let own = top.join(inside);
        folders
            .extend(own.ancestors().take_while(|f| f.starts_with(&top)).map(|f| (f.to_path_buf(), version)));
    }
    folders
}

/// If this line of mountinfo(5) is the hierarchy we look for: (its root within the hierarchy, where it is mounted).
fn mount_of(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    let wanted = match version {
        Version::V1 => kind == "cgroup" && options.split(',').any(|o| o == "memory"),
        Version::V2 => kind == "cgroup2",
    };
    let mut left = left.split(' ').skip(3);
    let (mount_root, mount_point) = (left.next()?, left.next()?);
    wanted.then(|| (unescape(mount_root), unescape(mount_point)))
}

/// mountinfo(5) writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (code, char) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, char);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(available_kib: u64) -> Self {
            let fake = Fake(tempfile::tempdir().unwrap());
            fake.put("proc/meminfo", &format!("MemTotal: 99999999 kB\nMemAvailable:   {available_kib} kB\n"));
            fake
        }
        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        fn look(&self) -> HostMemory {
            HostMemory::under(self.0.path()).unwrap()
        }
        fn group(&self, path: &str) -> LimitedBy {
            LimitedBy::Cgroup(self.0.path().join(path))
        }
    }

    #[test]
    fn without_groups_the_host_decides() {
        let fake = Fake::new(1000);
        assert_eq!(fake.look(), HostMemory { available: 1_024_000, limited_by: LimitedBy::Host });
    }

    #[test]
    fn the_tightest_ancestor_decides_in_version_2() {
        let fake = Fake::new(1_000_000);
        fake.put("proc/self/cgroup", "0::/a/b/c\n");
        fake.put("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        fake.put("sys/fs/cgroup/a/memory.max", "5000\n");
        fake.put("sys/fs/cgroup/a/memory.current", "4500\n");
        fake.put("sys/fs/cgroup/a/memory.stat", "anon 100\ninactive_file 300\nactive_file 7\n");
        fake.put("sys/fs/cgroup/a/b/memory.max", "max\n");
        fake.put("sys/fs/cgroup/a/b/memory.current", "1\n");
        fake.put("sys/fs/cgroup/a/b/c/memory.max", "100000\n");
        fake.put("sys/fs/cgroup/a/b/c/memory.current", "1\n");
        let seen = fake.look();
        assert_eq!(seen, HostMemory { available: 800, limited_by: fake.group("sys/fs/cgroup/a") });
        fake.put("sys/fs/cgroup/a/memory.current", "9999999\n");
        assert_eq!(fake.look().available, 0, "over the limit is no room, not a wrap-around");
    }

    #[test]
    fn version_1_beside_an_empty_version_2() {
        let fake = Fake::new(1_000_000);
        fake.put("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/x/y\n0::/\n");
        fake.put(
            "proc/self/mountinfo",
            "35 31 0:32 /x /sys/fs/c\\040g rw,relatime - cgroup cgroup rw,cpu,memory\n41 31 0:38 / /u rw - cgroup2 c rw\n",
        );
        fake.put("sys/fs/c g/y/memory.limit_in_bytes", "9223372036854771712\n");
        fake.put("sys/fs/c g/y/memory.usage_in_bytes", "70\n");
        fake.put("sys/fs/c g/memory.limit_in_bytes", "100\n");
        fake.put("sys/fs/c g/memory.usage_in_bytes", "70\n");
        fake.put("sys/fs/c g/memory.stat", "inactive_file 1\ntotal_inactive_file 20\n");
        assert_eq!(fake.look(), HostMemory { available: 50, limited_by: fake.group("sys/fs/c g") });
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_no_way_out_of_the_mount() {
        let fake = Fake::new(1_000_000);
        fake.put("proc/self/cgroup", "0::/../../etc\n");
        fake.put("proc/self/mountinfo", "31 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n");
        fake.put("cg/memory.max", "10\n");
        fake.put("cg/memory.current", "4\n");
        assert_eq!(fake.look().available, 6);
    }

    #[test]
    fn nonsense_is_an_error_and_not_a_number() {
        let fake = Fake::new(1);
        fake.put("proc/meminfo", "MemAvailable: lots\n");
        let error = HostMemory::under(fake.0.path()).unwrap_err();
        assert!(error.to_string().contains("MemAvailable"), "{error}");
    }

    #[test]
    fn this_host_answers() {
        assert!(HostMemory::now().unwrap().available > 0);
    }
}
