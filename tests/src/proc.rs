//! What the kernel tells about a process.

use std::time::Duration;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a processor, user and system.
    pub cpu: Duration,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Resident memory that is not shared memory, bytes.
    pub private_bytes: u64,
}

impl Usage {
    /// Reads `/proc/PID/stat` and `status`; `None` if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = fields_after_name(&stat)?;
        // Numbers as in proc_pid_stat(5), which counts from 1 and has two fields before these.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self {
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
            minor_faults: field(10)?,
            major_faults: field(12)?,
            private_bytes: status_kib(&status, "RssAnon:") * 1024,
        })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            private_bytes: self.private_bytes,
        }
    }
}

fn fields_after_name(stat: &str) -> Option<Vec<&str>> {
    // The name is in parentheses and may hold anything, parentheses too.
    Some(stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect())
}

fn status_kib(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// All processes below `pid`.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = fields_after_name(&stat).and_then(|fields| fields.get(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (child, parent)));
    }
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_testkit::is_alive;

    #[test]
    fn a_child_is_found_and_its_end_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is there");
        assert!(descendants(std::process::id()).contains(&child.id()));
        assert!(is_alive(child.id()));
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        assert!(!is_alive(child.id()));
    }

    #[test]
    fn faults_are_counted() {
        let before = Usage::of(std::process::id()).expect("ourselves");
        let pages = std::hint::black_box(vec![1_u8; 16 << 20]);
        let used = Usage::of(std::process::id()).expect("ourselves").since(before);
        assert!(used.minor_faults + used.major_faults > 0, "{} bytes touched, no fault seen", pages.len());
    }
}
