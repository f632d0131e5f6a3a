//! What every AITS service does around its work: logging, a runtime, signals, finding its peers again.
//!
//! A service is a subcommand of the `aits` binary. Its crate exports `Args` and a `run` of one line:
//!
//! ```no_run
//! # use aits_service::{CommonArgs, ServiceContext, ServiceError, run_service};
//! # use baton_rpc::Router;
//! #[derive(clap::Args)]
//! pub struct Args {
//!     #[command(flatten)]
//!     common: CommonArgs,
//! }
//!
//! pub fn run(args: Args) -> std::process::ExitCode {
//!     run_service("vas", &args.common, |context| serve(context))
//! }
//!
//! async fn serve(context: ServiceContext) -> Result<(), ServiceError> {
//!     context.serve(Router::new()).await
//! }
//! ```
//!
//! ```text
//!  start ──▶ parent-death signal ──▶ logging ──▶ runtime ──▶ work ──▶ end (exit code)
//!                                                   │          ▲
//!                            SIGTERM, SIGINT ───────┴──▶ shutdown() resolves; after GRACE the process ends anyway
//! ```
//!
//! Failure paths: an error of the work is one sentence on stderr and an exit code a supervisor can act on
//! ([`ServiceError`]); a parent that dies takes the service with it ([`die_with_parent`]); a peer that dies is found
//! again by name ([`NamedSender`], [`baton_rpc::Client`]).

#![forbid(unsafe_code)]

mod context;
mod error;
mod logging;
mod parent;
mod run;
mod sender;

pub use context::ServiceContext;
pub use error::{ExitClass, ServiceError};
pub use logging::init_logging;
pub use parent::{SUPERVISED_ENV, die_with_parent};
pub use run::{CommonArgs, GRACE, run_service};
pub use sender::{NamedSender, NotSent, NotSentReason};
