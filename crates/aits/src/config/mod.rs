//! `aits.toml`: everything that can be set, with its default. A flag wins over an environment variable, that over the
//! file.

mod problem;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aits_orders::{Pace, StartTask};
use aits_service::ServiceError;
use serde::Deserialize;
use toml::Spanned;

pub(crate) use values::{Listen, Size};

/// The file with all defaults and an explanation of each; a test keeps it equal to [`Config::default`].
const DEFAULT: &str = include_str!("default.toml");

/// A whole configuration.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Address of the page.
    pub(crate) listen: Listen,
    /// Directory of the task database.
    pub(crate) data: Option<PathBuf>,
    /// The memory.
    pub(crate) pool: Pool,
    /// Detection.
    pub(crate) vss: Vss,
    /// Page and API.
    pub(crate) gateway: Gateway,
    /// Tasks that are started with the system.
    #[serde(rename = "task")]
    pub(crate) tasks: Vec<Task>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pool {
    /// Memory for frames.
    pub(crate) size: Size,
    /// Largest block.
    pub(crate) max_block: Size,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Vss {
    /// Processes that detect.
    #[serde(deserialize_with = "values::instances")]
    pub(crate) instances: u32,
    /// ONNX file.
    pub(crate) model: Option<PathBuf>,
    /// ONNX Runtime library.
    pub(crate) runtime: Option<PathBuf>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gateway {
    /// Worker processes.
    #[serde(deserialize_with = "values::instances")]
    pub(crate) workers: u32,
}

/// A task that is started with the system.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    id: Spanned<String>,
    url: String,
    #[serde(default)]
    pace: Pace,
    #[serde(default)]
    repeat: bool,
    #[serde(default = "values::detect_hz")]
    detect_hz: f64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { size: Size(512 << 20), max_block: Size(16 << 20) }
    }
}

impl Default for Vss {
    fn default() -> Self {
        Self { instances: 1, model: None, runtime: None }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self { workers: 2 }
    }
}

impl Config {
    /// Reads a file. Relative paths in it count from its own directory.
    ///
    /// # Errors
    /// A sentence with file, line and column, the line itself and a caret; class `Config`.
    pub(crate) fn read(path: &Path) -> Result<Self, ServiceError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ServiceError::config(format!("the configuration {} cannot be read: {error}", path.display()))
        })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = [&mut config.data, &mut config.vss.model, &mut config.vss.runtime];
        for found in paths.into_iter().flatten() {
            *found = std::path::absolute(base.join(&*found))?;
        }
        for task in config.tasks.iter_mut().filter(|task| !task.url.contains("://")) {
            task.url = std::path::absolute(base.join(&task.url))?.display().to_string();
        }
        Ok(config)
    }

    fn parse(text: &str, name: &str) -> Result<Self, ServiceError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ServiceError::config(problem::shown(&error, text, name)))?;
        let mut taken = BTreeSet::new();
        if let Some(twice) = config.tasks.iter().find(|task| !taken.insert(task.id.get_ref())) {
            let what =
                format!("there is a task `{}` already; each needs an id of its own", twice.id.get_ref());
            return Err(ServiceError::config(problem::at(&what, twice.id.span(), text, name)));
        }
        Ok(config)
    }
}

impl Task {
    /// The order to wmits.
    pub(crate) fn order(&self) -> StartTask {
        StartTask {
            id: Some(self.id.get_ref().clone()),
            url: self.url.clone(),
            pace: self.pace,
            repeat: self.repeat,
            detect_hz: self.detect_hz,
        }
    }
}

/// Arguments of `aits check`.
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    /// The configuration file
    #[arg(short = 't', long = "config", value_name = "FILE", default_value = "aits.toml")]
    file: PathBuf,
}

/// Checks a file and says that it is good.
pub(crate) fn check(args: &CheckArgs) -> Result<(), ServiceError> {
    let config = Config::read(&args.file)?;
    let cache = crate::locate::cache_dir();
    crate::locate::model(config.vss.model.as_deref(), cache.as_deref())?;
    crate::locate::runtime(config.vss.runtime.as_deref(), cache.as_deref())?;
    println!("{}: good, {} tasks", args.file.display(), config.tasks.len());
    Ok(())
}

/// Prints the default configuration.
pub(crate) fn print_default() -> Result<(), ServiceError> {
    print!("{DEFAULT}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_default_is_the_default() {
        assert_eq!(Config::parse(DEFAULT, "default.toml").unwrap(), Config::default());
        let uncommented: String = DEFAULT
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let full = Config::parse(&uncommented, "default.toml").unwrap();
        assert_eq!(full.tasks[0].order().detect_hz, 5.0);
        assert!(full.data.is_some() && full.vss.model.is_some());
    }

    #[test]
    fn a_typo_is_shown_with_its_place_and_the_right_word() {
        let text = "listen = \"127.0.0.1:8080\"\n\n[pool]\nsise = \"512MiB\"\n";
        let error = Config::parse(text, "aits.toml").unwrap_err();
        assert_eq!(
            error.message(),
            "aits.toml:4:1: unknown field `sise`, expected `size` or `max_block`\n  \
             |\n4 | sise = \"512MiB\"\n  | ^^^^ did you mean `size`?"
        );
        assert_eq!(error.class(), aits_service::ExitClass::Config);
    }

    #[test]
    fn bad_values_point_at_the_value() {
        for (text, place, says) in [
            ("[pool]\nsize = \"5 apples\"\n", "f:2:8", "512MiB"),
            ("listen = \"here\"\n", "f:1:10", "127.0.0.1:8080"),
            ("listen = \"[::1]:0\"\n", "f:1:10", "leaves the port open"),
            ("[vss]\ninstances = 0\n", "f:2:13", "1 to 64"),
            (
                "[[task]]\nid = \"a\"\nurl = \"x\"\n[[task]]\nurl = \"y\"\nid = \"a\"\n",
                "f:6:6",
                "a task `a` already",
            ),
            ("[pool\nsize = 1\n", "f:1:6", "|"),
            ("[[task]]\nid = \"a\"\n", "f:1:1", "url"),
        ] {
            let error = Config::parse(text, "f").unwrap_err();
            assert!(error.message().starts_with(place), "{error}");
            assert!(error.message().contains(says) && error.message().contains('^'), "{error}");
        }
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aits.toml");
        std::fs::write(
            &path,
            "[[task]]\nid = \"a\"\nurl = \"a.mp4\"\n[[task]]\nid = \"b\"\nurl = \"rtsp://b/1\"\n",
        )
        .unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.tasks[0].url, dir.path().join("a.mp4").display().to_string());
        assert_eq!(config.tasks[1].url, "rtsp://b/1");
    }
}
