//! Cores, clocks, and what else the machine is doing.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Where a process of a measurement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The first core that this process may use.
    First,
    /// The second; the first again if there is only one.
    Second,
    /// Wherever the scheduler puts it.
    Any,
}

impl Core {
    /// As an argument of a role.
    pub fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Any => "any",
        }
    }

    /// From an argument of a role.
    pub fn parse(word: &str) -> Self {
        match word {
            "first" => Self::First,
            "second" => Self::Second,
            _ => Self::Any,
        }
    }
}

/// The cores that were allowed at start, before anything was pinned.
#[derive(Debug, Clone)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// Reads them; a child gets the parent's list, whose own pinning it would otherwise inherit.
    pub fn allowed() -> Self {
        if let Some(text) = std::env::var_os("BATON_BENCH_CORES").and_then(|text| text.into_string().ok()) {
            return Self(text.split(',').filter_map(|core| core.parse().ok()).collect());
        }
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        Self((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }

    /// For the environment of children.
    pub fn env(&self) -> (&'static str, String) {
        let list: Vec<String> = self.0.iter().map(usize::to_string).collect();
        ("BATON_BENCH_CORES", list.join(","))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Pins this process. Where that is not allowed it runs anywhere, and the figures show it.
    pub fn pin(&self, core: Core) {
        let mut set = CpuSet::new();
        let chosen = match core {
            Core::First => self.0.first(),
            Core::Second => self.0.get(1).or(self.0.first()),
            Core::Any => None,
        };
        match chosen {
            Some(core) => set.set(*core),
            None => self.0.iter().for_each(|core| set.set(*core)),
        }
        if let Err(error) = sched_setaffinity(None, &set) {
            eprintln!("baton-bench-memory: cannot pin to a core: {error}");
        }
    }
}

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds that a process has spent on a core, all threads together. 0 if it is gone.
pub fn cpu_of(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let on_core = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_ascii_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(|task| on_core(task.path())).sum()
}

/// What the figures were measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Runnable processes, averaged over the last minute, at the start.
    pub load: f64,
}

impl Machine {
    /// Looks.
    pub fn look(cores: &Cores) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = model.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor,
            cores: cores.count(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// Whether others want the cores, too.
    pub fn is_busy(&self) -> bool {
        self.load > 0.3 * self.cores as f64
    }
}
