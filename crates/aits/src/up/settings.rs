//! File, flags and defaults become one set of numbers and paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aits_orders::{Pace, RunDir, StartTask};
use aits_service::ServiceError;

use super::Args;
use crate::config::Config;
use crate::locate;

/// Name of the task database in its directory.
const DB: &str = "tasks.db";
/// Longest task id.
const ID_MAX: usize = 64;

/// Everything that `aits up` needs to know.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) run: RunDir,
    pub(super) listen: String,
    pub(super) db: PathBuf,
    pub(super) pool_size: u64,
    pub(super) max_block: u64,
    pub(super) vss: u32,
    pub(super) workers: u32,
    pub(super) model: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) log: String,
    pub(super) tasks: Vec<StartTask>,
}

impl Settings {
    /// Reads the file, lets flags win, finds model and runtime, makes the data directory.
    ///
    /// # Errors
    /// A sentence for the first thing that cannot work.
    pub(super) fn gather(args: Args) -> Result<Self, ServiceError> {
        let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        let run = std::path::absolute(args.run.unwrap_or_else(crate::cli::default_run_dir))?;
        let mut tasks: Vec<StartTask> = config.tasks.iter().map(crate::config::Task::order).collect();
        let taken = tasks.iter().filter_map(|task| task.id.clone()).collect();
        tasks.extend(videos(&args.videos, args.repeat, taken)?);
        let cache = locate::cache_dir();
        let model = args.model.or(config.vss.model);
        let runtime = args.runtime.or(config.vss.runtime);
        Ok(Self {
            db: database(args.data.or(config.data), !args.videos.is_empty(), &run)?,
            run: RunDir::new(run),
            listen: args.listen.unwrap_or(config.listen).0,
            pool_size: args.pool_size.unwrap_or(config.pool.size).0,
            max_block: config.pool.max_block.0,
            vss: args.vss.unwrap_or(config.vss.instances),
            workers: args.gateway_workers.unwrap_or(config.gateway.workers),
            model: locate::model(model.as_deref(), cache.as_deref())?,
            runtime: locate::runtime(runtime.as_deref(), cache.as_deref())?,
            log: args.log,
            tasks,
        })
    }
}

/// The file of the task database. Whoever names videos on the command line looks at these, and not at what ran the last
/// time: unless a directory is named, such tasks live in the run directory and go with it.
fn database(data: Option<PathBuf>, videos: bool, run: &Path) -> Result<PathBuf, ServiceError> {
    let dir = match data {
        Some(dir) => std::path::absolute(dir)?,
        None if videos => return Ok(run.join(DB)),
        None => default_data_dir()?,
    };
    std::fs::create_dir_all(&dir).map_err(|error| {
        ServiceError::config(format!(
            "the data directory {} cannot be made ({error}); name another with --data",
            dir.display()
        ))
    })?;
    Ok(dir.join(DB))
}

fn default_data_dir() -> Result<PathBuf, ServiceError> {
    let from_env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from_env("XDG_STATE_HOME")
        .or_else(|| from_env("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("aits"))
        .ok_or_else(|| {
            ServiceError::config("neither XDG_STATE_HOME nor HOME says where tasks are kept; use --data")
        })
}

/// One task per video, named after its file, with a number if that name is `taken`.
fn videos(
    videos: &[String],
    repeat: bool,
    mut taken: BTreeSet<String>,
) -> Result<Vec<StartTask>, ServiceError> {
    let mut tasks = Vec::new();
    for video in videos {
        let is_address = video.contains("://");
        if !is_address {
            std::fs::File::open(video).map_err(|error| {
                ServiceError::usage(format!(
                    "{video} cannot be read ({error}); give the path of a video, or a URL"
                ))
            })?;
        }
        let url = if is_address { video.clone() } else { std::path::absolute(video)?.display().to_string() };
        let stem = id_of(video);
        let id = (1..)
            .map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") })
            .find(|id| taken.insert(id.clone()));
        tasks.push(StartTask {
            id,
            url,
            pace: Pace::Realtime,
            repeat: repeat && !is_address,
            detect_hz: 5.0,
        });
    }
    Ok(tasks)
}

/// A task id from a path or address: its last part without extension, in characters that an id may have.
fn id_of(video: &str) -> String {
    let path = video.split(['?', '#']).next().unwrap_or(video);
    let stem =
        Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let safe: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(ID_MAX - 4) // room for a number
        .collect();
    if safe.is_empty() { "video".into() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_names() {
        for (video, id) in [
            ("road.mp4", "road"),
            ("/clips/A road (2).mp4", "A-road--2-"),
            ("rtsp://user:secret@camera:554/north?token=1", "north"),
            ("rtsp://camera", "camera"),
            ("/", "video"),
        ] {
            assert_eq!(id_of(video), id, "{video}");
        }
        assert!(id_of(&"x".repeat(300)).len() < ID_MAX);
    }

    #[test]
    fn equal_names_get_numbers_and_cameras_are_not_looped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4");
        std::fs::write(&file, "").unwrap();
        let file = file.display().to_string();
        let tasks = videos(&[file.clone(), file, "rtsp://host/a".into()], true, BTreeSet::new()).unwrap();
        let ids: Vec<&str> = tasks.iter().filter_map(|task| task.id.as_deref()).collect();
        assert_eq!(ids, ["a", "a-2", "a-3"]);
        assert_eq!(tasks.iter().map(|task| task.repeat).collect::<Vec<_>>(), [true, true, false]);
        let configured = videos(&["rtsp://host/a".into()], false, BTreeSet::from(["a".into()])).unwrap();
        assert_eq!(configured[0].id.as_deref(), Some("a-2"), "the file has a task of this name");
        let missing = videos(&["nowhere.mp4".into()], false, BTreeSet::new()).unwrap_err();
        assert!(missing.message().contains("nowhere.mp4 cannot be read"), "{missing}");
    }

    #[test]
    fn videos_of_the_command_line_leave_no_tasks_behind() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        assert_eq!(database(None, true, &run).unwrap(), run.join(DB));
        let data = dir.path().join("data");
        assert_eq!(database(Some(data.clone()), true, &run).unwrap(), data.join(DB));
        assert!(data.is_dir());
    }
}
