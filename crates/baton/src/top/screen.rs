//! `baton top` on a terminal: set it up, draw, read keys, put it back.
//!
//! ```text
//!   feed thread ──Update──▶┐
//!   signal thread ──Quit──▶├─ channel ─▶ loop: take all, draw if anything changed, wait for a key ──q──▶ end
//!   keys, resizes ─────────┘
//! ```
//! [`ratatui::try_init`] also has a panic put the terminal back before its message is printed; one of the feed thread
//! ends the loop, too. A terminal that vanishes (its window or connection was closed) usually comes with SIGHUP, but not
//! to whom `nohup` or a session without a controlling terminal started: so each turn asks the kernel, since waiting for
//! keys would spin and a picture that does not change is not written.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::app::App;
use super::draw::draw;
use super::feed::{Feed, Update};
use crate::args::TopArgs;
use crate::failure::Failure;

/// How long a key may wait behind a sample, and a sample behind a key.
const TICK: Duration = Duration::from_millis(50);

enum News {
    Update(Update),
    Quit,
}

pub(crate) fn run(args: &TopArgs, feed: Feed) -> Result<(), Failure> {
    let (tell, news) = mpsc::channel();
    quit_on_signals(tell.clone()).map_err(Failure::Terminal)?;
    let (stop, stopped) = mpsc::channel::<()>();
    let feeder = std::thread::spawn(move || watch(feed, &tell, &stopped));
    let mut terminal = ratatui::try_init().map_err(Failure::Terminal)?;
    let mut app = App::new(&args.query.connect);
    let ended =
        drive(&mut terminal, &mut app, &news, &|| feeder.is_finished(), args.samples.unwrap_or(u64::MAX));
    let restored = ratatui::try_restore();
    drop(stop);
    drop(feeder); // it ends by itself at its next look; a daemon that hangs is not waited for
    if has_vanished() {
        // What failed failed because of that, and nobody is there to be told: the terminal's own drop would try, and the
        // attempt to print would be a panic in a panic.
        std::mem::forget(terminal);
        return Ok(());
    }
    ended.and(restored).map_err(Failure::Terminal)
}

/// Whether the terminal at the standard output was closed from the other side.
fn has_vanished() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

fn drive(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    news: &mpsc::Receiver<News>,
    feed_ended: &dyn Fn() -> bool,
    samples: u64,
) -> io::Result<()> {
    let mut changed = true;
    loop {
        loop {
            match news.try_recv() {
                Ok(News::Update(update)) => app.update(update),
                Ok(News::Quit) => return Ok(()),
                Err(TryRecvError::Empty) if !feed_ended() => break,
                Err(_) => return Err(io::Error::other("the sampling thread has ended")),
            }
            changed = true;
        }
        if has_vanished() {
            return Ok(());
        }
        if changed {
            terminal.draw(|frame| draw(frame, app))?;
        }
        if app.samples >= samples {
            return Ok(());
        }
        changed = event::poll(TICK)?;
        if changed
            && let Event::Key(key) = event::read()?
            && !app.key(key)
        {
            return Ok(());
        }
    }
}

/// Samples until nobody wants them.
fn watch(mut feed: Feed, tell: &Sender<News>, stopped: &mpsc::Receiver<()>) {
    while tell.send(News::Update(feed.next())).is_ok() {
        if stopped.recv_timeout(feed.pause()) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// In raw mode Ctrl-C is a key; but others send signals, and a terminal that goes away does.
fn quit_on_signals(tell: Sender<News>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [mut term, mut int, mut hup] = {
        let _inside = runtime.enter();
        let [term, int, hup] = kinds.map(signal);
        [term?, int?, hup?]
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hup.recv() => {} }
        });
        let _ = tell.send(News::Quit); // the loop has ended before: fine
    });
    Ok(())
}
