//! What who wakes a sleeper tells it, so that the sleeper can judge whether it should have looked a little longer instead.
//!
//! ```text
//!   receiver     sleeps at s ······························ is up at u       u − w: its lateness, if it sends soon
//!   sender                       sends at w, `late` of its own ▲
//! ```
//! The message would have come at `w − late` if its sender had been awake itself. Two that answer each other, both asleep,
//! would otherwise never find out that looking pays: each one's waiting is mostly the other's waking up. And a sender on
//! the sleeper's own processor could not have sent while the sleeper looked.
//!
//! All of it is hints on the pair of cache lines that the waker writes anyway, on its way to a system call. They may be
//! missing, old or garbage: then somebody sleeps or looks in vain, once.

use crate::region::Endpoint;
use rustix::thread::sched_getcpu;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A lateness explains what is sent within this time after waking up.
const SOON: u32 = 200_000;
/// Longer sleeps are not worth a judgement, and their times would be ambiguous in 32 bits.
const LONG: Duration = Duration::from_secs(1);

/// Nanoseconds, modulo 2³².
#[derive(Debug, Clone, Copy, Default)]
struct Moment(u32);

impl Moment {
    fn since(self, earlier: Moment) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// When this thread last woke up, and how late.
#[derive(Clone, Copy)]
struct Late {
    up: Moment,
    by: u32,
}

thread_local! {
    static LATE: Cell<Late> = const { Cell::new(Late { up: Moment(0), by: 0 }) };
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(clippy::cast_possible_truncation, reason = "modulo 2³² on purpose")]
fn moment(time: Duration) -> Moment {
    Moment(time.as_nanos() as u32)
}

fn processor() -> u32 {
    u32::try_from(sched_getcpu()).map_or(0, |number| number.wrapping_add(1))
}

/// Before a sleeper is woken: when the message was sent, and where.
pub(crate) fn tell(sleeper: Endpoint<'_>) {
    let sent = moment(now());
    let Late { up, by } = LATE.get();
    let late = if sent.since(up) < SOON { by } else { 0 };
    let [at, late_by, on] = sleeper.told();
    at.store(sent.0, Relaxed);
    late_by.store(late, Relaxed);
    on.store(processor(), Relaxed);
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Woken {
    /// The message was sent so long after the sleep had begun.
    pub after: Duration,
    /// Its sender, awake, would have sent it so much earlier.
    pub late: Duration,
}

/// A sleep that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asleep {
    since: Duration,
    on: u32,
}

impl Asleep {
    /// About to sleep.
    pub fn begin(me: Endpoint<'_>) -> Self {
        let [_, _, on] = me.told();
        on.store(0, Relaxed);
        Self { since: now(), on: processor() }
    }

    /// Up again. When the message was sent, counted from the beginning, and how late that was; `None`: it would not have
    /// come while this thread looked for it.
    pub fn end(self, me: Endpoint<'_>) -> Option<Woken> {
        let [at, late_by, on] = me.told();
        let (sent, late, on) = (Moment(at.load(Relaxed)), late_by.load(Relaxed), on.load(Relaxed));
        let up = now();
        let slept = up.saturating_sub(self.since);
        if slept > LONG {
            return None;
        }
        let came = sent.since(moment(self.since));
        let nanos = |nanos: u32| Duration::from_nanos(nanos.into());
        if on == 0 || nanos(came) > slept {
            // Nothing was told, or long ago: it ended by itself, or so fast that the sender is still about to tell.
            return Some(Woken { after: slept, late: Duration::ZERO });
        }
        LATE.set(Late { up: moment(up), by: moment(up).since(sent) });
        (on != self.on).then(|| Woken { after: nanos(came), late: nanos(late) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::PoolConfig;
    use crate::ids::EndpointId;
    use crate::pool::Pool;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::time::Instant;

    const WATCHDOG: Duration = Duration::from_secs(60);
    const A: EndpointId = EndpointId::new(1).unwrap();
    const B: EndpointId = EndpointId::new(2).unwrap();

    fn pool() -> Pool {
        Pool::create(&PoolConfig { payload_bytes: 1 << 20, ..PoolConfig::default() }).unwrap().0
    }

    fn record(pool: &Pool, id: EndpointId) -> Endpoint<'_> {
        pool.shared.region.endpoint(id).unwrap()
    }

    /// Tells from a thread of its own, on that processor if one is named.
    fn tell_elsewhere(pool: &Pool, id: EndpointId, on: Option<&CpuSet>) {
        std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                if let Some(on) = on {
                    sched_setaffinity(None, on).unwrap();
                }
                tell(record(pool, id));
            });
            told.join().unwrap();
        });
    }

    #[test]
    fn a_message_from_another_processor_would_have_come_and_one_from_the_own_would_not() {
        let pool = pool();
        let allowed = sched_getaffinity(None).unwrap();
        let one = |number| {
            let mut set = CpuSet::new();
            set.set(number);
            set
        };
        let mut processors = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number)).map(one);
        let (own, other) = (processors.next().unwrap(), processors.next());
        std::thread::scope(|scope| {
            let judged = scope.spawn(|| {
                sched_setaffinity(None, &own).unwrap();
                let judge = |on| {
                    let (started, asleep) = (Instant::now(), Asleep::begin(record(&pool, A)));
                    tell_elsewhere(&pool, A, Some(on));
                    let woken = asleep.end(record(&pool, A));
                    assert!(woken.is_none_or(|woken| woken.after <= started.elapsed()));
                    woken
                };
                assert!(judge(&own).is_none(), "while this thread looked, that one could not have sent");
                match &other {
                    Some(other) => assert!(judge(other).is_some()),
                    None => eprintln!("one processor: a message from another one is not tried"),
                }
            });
            judged.join().unwrap();
        });
    }

    #[test]
    fn who_sends_soon_after_waking_up_tells_how_late_it_was() {
        let (pool, until) = (pool(), Instant::now() + WATCHDOG);
        let late = || {
            let asleep = Asleep::begin(record(&pool, B));
            tell_elsewhere(&pool, B, None);
            std::thread::sleep(Duration::from_millis(2)); // as if the wake-up took that long
            let _ = asleep.end(record(&pool, B));
            tell(record(&pool, A));
            record(&pool, A).told()[1].load(Relaxed)
        };
        // On a busy machine "soon" may be over before it sends; then nothing is told, and it is tried again.
        let by = std::iter::repeat_with(late).take_while(|_| Instant::now() < until).find(|by| *by > 0);
        assert!(by.expect("in time once") >= 2_000_000);
        std::thread::sleep(Duration::from_nanos(u64::from(2 * SOON)));
        tell(record(&pool, A));
        assert_eq!(record(&pool, A).told()[1].load(Relaxed), 0, "what is sent later has other reasons");
    }

    #[test]
    fn nothing_told_and_garbage_do_no_harm() {
        let pool = pool();
        let me = record(&pool, A);
        let asleep = Asleep::begin(me);
        let woken = asleep.end(me).expect("it ended by itself");
        assert!(woken.late.is_zero());
        for bits in [1, u32::MAX / 2, u32::MAX] {
            let asleep = Asleep::begin(me);
            for cell in me.told() {
                cell.store(bits, Relaxed);
            }
            if let Some(woken) = asleep.end(me) {
                assert!(woken.after <= LONG && woken.late <= Duration::from_nanos(u32::MAX.into()));
            }
        }
    }
}
