//! The processes of a system: their commands, and the order in which they start and end.

use std::ffi::OsString;

use aits_service::ServiceError;

use super::settings::Settings;

/// Position in the order of ending: 0 first.
pub(super) type Stage = usize;

/// How many stages there are.
pub(super) const STAGES: usize = 3;

/// Viewers leave first, so that nobody sees the rest go.
const DOOR: Stage = 0;
const WORK: Stage = 1;
/// The memory goes last: the others give back what they hold.
const MEMORY: Stage = 2;

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// As `vss-0`.
    pub(super) name: String,
    /// The program.
    pub(super) program: OsString,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// When it ends.
    pub(super) stage: Stage,
    /// Whether the others stand on it: they start when it answers.
    pub(super) foundation: bool,
    /// What to add if it cannot start: the setting that is likely to be the cause.
    pub(super) hint: Option<String>,
}

/// All processes in starting order.
pub(super) fn members(settings: &Settings) -> Result<Vec<Member>, ServiceError> {
    let program: OsString = std::env::current_exe()?.into();
    let member = |name: &str, stage: Stage, own: Vec<OsString>| {
        let subcommand = name.split('-').next().unwrap_or(name);
        let mut arguments: Vec<OsString> =
            vec![subcommand.into(), "--run".into(), settings.run.path().into()];
        arguments.extend(["--log".into(), settings.log.clone().into()]);
        arguments.extend(own);
        let foundation = stage == MEMORY;
        Member { name: name.into(), program: program.clone(), arguments, stage, foundation, hint: None }
    };
    let text = |value: &dyn ToString| OsString::from(value.to_string());
    let mut all = vec![
        member(
            "rmmt",
            MEMORY,
            vec![
                "--pool-size".into(),
                text(&settings.pool_size),
                "--max-block".into(),
                text(&settings.max_block),
            ],
        ),
        member("vas", WORK, vec![]),
    ];
    for index in 0..settings.vss {
        let own = vec![
            "--index".into(),
            text(&index),
            "--model".into(),
            settings.model.clone().into(),
            "--runtime".into(),
            settings.runtime.clone().into(),
        ];
        all.push(member(&format!("vss-{index}"), WORK, own));
    }
    let db = vec!["--db".into(), settings.db.clone().into(), "--vss".into(), text(&settings.vss)];
    all.push(member("wmits", WORK, db));
    all.push(member("preview", WORK, vec![]));
    let door = vec!["--listen".into(), text(&settings.listen), "--workers".into(), text(&settings.workers)];
    all.push(member("gateway", DOOR, door));
    all[0].hint = Some(format!("--pool-size is {}", human(settings.pool_size)));
    Ok(all)
}

/// A size as people type it.
fn human(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting =
        units.into_iter().find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    fitting.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_were_typed() {
        for text in ["900GiB", "512MiB", "1536MiB", "3KiB", "1025"] {
            assert_eq!(human(baton_rmmt::parse_size(text).unwrap()), text);
        }
    }
}
