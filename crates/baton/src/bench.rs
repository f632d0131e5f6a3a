//! `baton bench WHAT`: runs `baton-bench-WHAT`, as git does with its subcommands.
//!
//! The measuring program brings rival libraries along, which have no place in the program that is deployed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Which program, and its arguments.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

/// What to measure.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// `memory`, and arguments that are passed on.
    #[command(external_subcommand)]
    Program(Vec<OsString>),
}

impl Bench {
    /// Becomes that program; comes back only if there is none.
    pub fn run(self) -> ExitCode {
        let What::Program(words) = self.what;
        let Some((what, arguments)) = words.split_first() else { return ExitCode::from(2) };
        let name = format!("baton-bench-{}", what.display());
        let Some(program) = find(&name) else {
            eprintln!(
                "baton: {name} is neither beside this program nor on PATH; `./x bench` in Baton's repository builds and \
                 runs the one for memory"
            );
            return ExitCode::FAILURE;
        };
        let error = Command::new(&program).args(arguments).exec();
        eprintln!("baton: cannot run {}: {error}", program.display());
        ExitCode::FAILURE
    }
}

fn find(name: &str) -> Option<PathBuf> {
    // A name with a slash in it would lead elsewhere.
    if name.contains('/') {
        return None;
    }
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(|dir| dir.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
    all.into_iter().find(|path| path.is_file())
}
