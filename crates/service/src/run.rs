//! From `main` to the work and back: arguments, runtime, signals, exit code.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aits_orders::RunDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::{ExitClass, ServiceContext, ServiceError, die_with_parent, init_logging};

/// How long the work may take to end after SIGTERM before the process ends anyway. The supervisor waits a little longer
/// than this before it kills.
pub const GRACE: Duration = Duration::from_millis(1200);

/// Arguments that every service takes. Put `#[command(flatten)] pub common: CommonArgs` into your `Args`.
#[derive(clap::Args, Clone, Debug)]
pub struct CommonArgs {
    /// Directory that holds the sockets of the system
    #[arg(long, env = "AITS_RUN", value_name = "DIR")]
    pub run: PathBuf,

    /// What to log, as `info` or `info,aits_vas=debug`
    #[arg(long, env = "AITS_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Log one JSON object a line
    #[arg(long)]
    pub json_log: bool,
}

impl CommonArgs {
    /// The run directory as the place of the sockets.
    pub fn run_dir(&self) -> RunDir {
        RunDir::new(&self.run)
    }
}

/// Runs a service: parent-death signal, logging to stderr, a runtime of two worker threads, signals; then `work` until
/// it returns. `name` is the name of its socket: `vas` listens at `vas.sock`.
///
/// An error is printed as one sentence (`vas: …`) and becomes the exit code.
pub fn run_service<F, Fut>(name: &str, common: &CommonArgs, work: F) -> ExitCode
where
    F: FnOnce(ServiceContext) -> Fut,
    Fut: Future<Output = Result<(), ServiceError>>,
{
    match try_run(name, common, work) {
        Ok(()) => ExitClass::Done.into(),
        Err(error) => {
            eprintln!("{name}: {error}");
            error.class().into()
        }
    }
}

fn try_run<F, Fut>(name: &str, common: &CommonArgs, work: F) -> Result<(), ServiceError>
where
    F: FnOnce(ServiceContext) -> Fut,
    Fut: Future<Output = Result<(), ServiceError>>,
{
    die_with_parent()?;
    init_logging(&common.log, common.json_log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(watch_signals(stop)?);
        work(ServiceContext::new(name, common.run_dir(), stopped)).await
    });
    // Threads that still block (a read of a dead camera) must not keep the process.
    runtime.shutdown_background();
    result
}

/// Tells everybody at the first signal; ends the process at the second, or when [`GRACE`] is over.
fn watch_signals(stop: watch::Sender<bool>) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(GRACE) => {
                tracing::warn!("something still blocks {} ms after the order to end; ending anyway", GRACE.as_millis());
            }
        }
        std::process::exit(i32::from(ExitClass::Failed.code()));
    })
}
