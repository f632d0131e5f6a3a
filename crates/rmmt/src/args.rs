//! What can be told to the daemon.

use std::path::PathBuf;

use crate::size::parse_size;

/// Arguments of `baton rmmt` and of every other command that is the memory daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where clients come: un://PATH for members and classic clients (the socket file gets mode 0600), ip://HOST:PORT for
    /// classic clients. Can be given several times; one un:// is needed.
    #[arg(long, value_name = "un://PATH", env = "BATON_RMMT", required_unless_present = "config")]
    pub listen: Vec<String>,

    /// Let classic clients come to an ip:// address that is not of this machine alone. They prove nothing about who they
    /// are.
    #[arg(long)]
    pub allow_remote: bool,

    /// Serve numbers for Prometheus at /metrics, and /healthz and /readyz, over HTTP. An address of this machine alone,
    /// unless --allow-remote; port 0 takes a free one, which the log names.
    #[arg(long, value_name = "ip://HOST:PORT")]
    pub metrics: Option<String>,

    /// Settings from a TOML file; what is given here as well counts more. Its tables `[[admit]]` say who may
    /// attach, and `[[admit_ip]]` which classic clients may come over ip://.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check settings and file, say what is wrong with them, and end.
    #[arg(short = 't', long)]
    pub check_config: bool,

    /// Memory for blocks, reserved at start. More than the machine has is refused. [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,

    /// Largest block that can be asked for. A 4K frame (NV12) takes 12.5 MB. [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_block: Option<u64>,

    /// How many processes may attach at once, at most 2047. [default: 255]
    #[arg(long, value_name = "N")]
    pub members_max: Option<u16>,

    /// Messages that wait in one inbox before it is full; rounded up to a power of two. [default: 64]
    #[arg(long, value_name = "N")]
    pub inbox_len: Option<u32>,

    /// How many blocks there must be numbers for, where millions of small ones are wanted (each costs 20 bytes of
    /// metadata). 0: thousands per 2 MiB, enough for frames.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_blocks: u32,

    /// Another user id that may attach, besides our own and root. Can be given several times. The socket file's
    /// directory and mode must let that user in, too.
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,

    /// Give the blocks' memory a name in /dev/shm, mode 0600, so that classic clients can open it. Without one nothing is
    /// there at any time, and classic clients are refused. Any process of our user can truncate a named memory, which
    /// ends all who use it; nobody can that of a pool without a name.
    #[arg(long, value_name = "/NAME")]
    pub shm_name: Option<String>,

    /// Run without the keeper: if the daemon is killed, the pool is gone for new members.
    #[arg(long)]
    pub no_keeper: bool,

    /// For a supervisor that starts this program again when it ends: take over from a keeper that was killed while its
    /// daemon serves, instead of refusing to start beside it; and end when the supervisor ends.
    #[arg(long)]
    pub supervised: bool,

    /// What to log, to stderr: error, warn, info, debug.
    #[arg(long = "log-level", value_name = "FILTER", env = "BATON_LOG", default_value = "info")]
    pub log: String,

    /// Leave time and colours out of the log, for a supervisor that puts its own in front of each line.
    #[arg(long)]
    pub log_plain: bool,
}

impl Args {
    /// The defaults, listening at `uri`.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            listen: vec![uri.into()],
            allow_remote: false,
            metrics: None,
            config: None,
            check_config: false,
            size: None,
            max_block: None,
            members_max: None,
            inbox_len: None,
            min_blocks: 0,
            allow_uid: Vec::new(),
            shm_name: None,
            no_keeper: false,
            supervised: false,
            log: "info".into(),
            log_plain: false,
        }
    }
}
