//! The local count of handles, together with the lanes that it stands in for: threads of one process clone, drop and
//! send handles of one block. Exactly one of them gives a lane back: never two, never none.

use super::*;
use baton_pool::extra::Extra;

/// A process' side of one block, as `handles` and `entries` have it.
struct Local {
    region: Arc<Region>,
    extra: Extra,
}

impl Local {
    /// With `handles` handles, all of one lane.
    fn of(region: Arc<Region>, handles: u32) -> Arc<Self> {
        let local = Local { region, extra: Extra::default() };
        (1..handles).for_each(|_| local.extra.add());
        Arc::new(local)
    }

    fn drop_handle(&self) {
        if !self.extra.leave() {
            self.region.release(a(), X).expect("this handle has a lane");
        }
    }

    /// What `Member::send` does: a sole handle leaves with its lane, any other one shares and leaves without.
    fn send_handle(&self) {
        if self.extra.is_sole() {
            self.region.send(a(), X, to_b(), Pass::Move).expect("this handle has a lane");
        } else {
            self.region.send(a(), X, to_b(), Pass::Share).expect("this handle has a lane");
            self.drop_handle();
        }
    }
}

/// Nobody has a lane or a handle too much, and B has received `messages`.
fn assert_balanced(local: &Local, messages: usize) {
    assert_eq!(lanes(&local.region, X, Lane::holder(a())), 0, "a lane without a handle");
    assert!(local.extra.is_sole(), "a handle that nobody has is counted");
    assert_eq!(drain(&local.region, &mut head(&local.region, b())).len(), messages);
    assert_eq!(lanes(&local.region, X, Lane::holder(b())), messages);
}

#[test]
fn one_of_two_that_clone_and_drop_gives_the_lane_back() {
    model(|| {
        let local = Local::of(pool(1, held_by(&[a()])), 2);
        let other = local.clone();
        let thread = thread::spawn(move || {
            other.extra.add();
            other.drop_handle();
            other.drop_handle();
        });
        local.drop_handle();
        thread.join().unwrap();
        assert_balanced(&local, 0);
        assert!(word(&local.region, X).is_free());
    });
}

#[test]
fn one_drops_while_another_sends() {
    model(|| {
        let local = Local::of(pool(1, held_by(&[a()])), 2);
        let other = local.clone();
        let thread = thread::spawn(move || other.drop_handle());
        local.send_handle();
        thread.join().unwrap();
        assert_balanced(&local, 1);
    });
}

#[test]
fn both_send() {
    model_within(2, || {
        let local = Local::of(pool(1, held_by(&[a()])), 2);
        let other = local.clone();
        let thread = thread::spawn(move || other.send_handle());
        local.send_handle();
        thread.join().unwrap();
        assert_balanced(&local, 2);
    });
}

/// The process has two lanes, because the block came back to it; which handle goes with which does not matter.
#[test]
fn two_lanes_and_three_handles() {
    model(|| {
        let local = Local::of(pool(1, held_by(&[a(), a()])), 2);
        let other = local.clone();
        let thread = thread::spawn(move || {
            other.drop_handle();
            other.drop_handle();
        });
        local.send_handle();
        thread.join().unwrap();
        assert_balanced(&local, 1);
    });
}
