//! The command line: what can be asked, and the help that explains it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{config, query, rmmt, up};

const EXIT_CODES: &str = "\
Exit codes:
   0  ended as ordered
   1  failed; the last line says why
   2  called in a wrong way
  78  the configuration cannot work on this machine (typo, bad model, port in use, pool too large)";

const EXAMPLES: &str = "\
Examples:
  aits up road.mp4 --loop          play a file again and again; the page is at http://127.0.0.1:8080/
  aits up rtsp://camera/stream     watch a camera
  aits up --config aits.toml       everything from a file (`aits config default` prints one to start from)
  aits ps                          the processes of the running system
  aits audit                       whether every block of the pool is accounted for";

/// Traffic-video analytics: processes around one pool of shared memory.
///
/// `aits up` starts everything: rmmt (the memory), vas (decodes video), vss (detects and tracks), wmits (tasks),
/// preview (pictures) and gateway (page and API), each a process of its own. The pixels of a frame are written once, by
/// vas, and are never copied between processes. Any of them may be killed; it is started again, and nothing is lost but
/// the frame in its hands.
#[derive(Parser, Debug)]
#[command(name = "aits", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start the whole system and look after it
    Up(up::Args),
    /// Show the processes of a running system
    Ps(query::Args),
    /// Check that every block of the pool of a running system is accounted for
    Audit(query::Args),
    /// Check a configuration file
    Check(config::CheckArgs),
    /// About the configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Service: the memory daemon
    Rmmt(rmmt::Args),
    /// Service: opens videos, decodes them into blocks
    Vas(aits_vas::Args),
    /// Service: detects, tracks, judges
    Vss(aits_vss::Args),
    /// Service: keeps the tasks, routes the frames
    Wmits(aits_wmits::Args),
    /// Service: makes pictures of watched streams
    Preview(aits_preview::Args),
    /// Service: the page and the API
    Gateway(aits_gateway::Args),
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Print a configuration file with all defaults
    Default,
}

/// Where the sockets of a system are when nobody says otherwise: `$XDG_RUNTIME_DIR/aits`, else a directory of the user's
/// own among the temporary ones.
pub(crate) fn default_run_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("aits"),
        None => std::env::temp_dir().join(format!("aits-{}", rustix::process::getuid().as_raw())),
    }
}
