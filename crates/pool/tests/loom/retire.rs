//! Models of extents that change hands while somebody works in them, or stalls, or dies.

use super::*;
use baton_pool::extent::Use;

fn class(len: usize) -> Class {
    Class::for_len(len).unwrap()
}

/// Takes one block of 64 bytes; binds an extent for it if there is none.
fn take_or_bind(region: &Region, me: EndpointId) -> Option<BlockId> {
    let take = || {
        let mut out = Vec::new();
        region.take(me, class(64), 1, &mut Cursor::default(), &mut out);
        out.pop()
    };
    take().or_else(|| region.bind_one(class(64), 0).then(take).flatten())
}

fn lanes_in(region: &Region, number: u32, id: EndpointId) -> usize {
    let words = 0..region.geometry.words_per_extent();
    words.filter(|within| Word::load(region.raw_word(number, *within)).names(id)).count()
}

/// Nobody works any more: every extent is whole, and what is free is indexed.
fn assert_whole(region: &Region) {
    for number in 0..region.geometry.extents() {
        match region.extent(number).unwrap().used().unwrap() {
            Use::Retired => panic!("extent {number} is halfway between two classes"),
            Use::Follows(head) => assert!(region.leads(head, number), "extent {number} follows nobody"),
            Use::Bound(_) => {
                for place in region.blocks_of(number) {
                    let free = Word::load(region.word(place)).is_free();
                    assert!(
                        !free || region.is_hinted(place.block),
                        "{:?} is free but not in the index",
                        place.block
                    );
                }
            }
            Use::Unbound => {
                let all = (0..region.geometry.words_per_extent()).all(|index| {
                    region.is_hinted(BlockId::new(number * region.geometry.words_per_extent() + index))
                });
                assert!(all, "extent {number} is unbound and not all of it in the index");
            }
        }
    }
}

/// A allocates a block of 64 bytes and dies at point `ka` (0: never); the daemon C gives the extent to pages and dies
/// at point `kc` (0: never); then the next daemon cleans up.
fn allocation_against_retirement(ka: u32, kc: u32) {
    model_within(2, move || {
        let region = Arc::new(Region::for_retirement(1, 2));
        region.bind(0, class(64));
        region.hide(X); // so A takes block 1: no page has its word
        let ra = region.clone();
        let member = thread::spawn(move || dying_at(ka, || take_or_bind(&ra, a())));
        let daemon = dying_at(kc, || {
            if region.retire(c(), 0) {
                region.bind(0, class(4096));
            }
        });
        if daemon == Err(Killed) {
            region.reap(c());
            region.repair(b());
        }
        let got = member.join().unwrap();
        assert_eq!(lanes_in(&region, 0, c()), 0, "a lane of the daemon remains");
        match got {
            Ok(Some(block)) => {
                assert_eq!(region.class_of(0), Some(class(64)), "the extent was taken from under a holder");
                assert_eq!(lanes(&region, block, Lane::holder(a())), 1);
                assert_eq!(lanes_in(&region, 0, a()), 1);
            }
            Ok(None) => assert_eq!(lanes_in(&region, 0, a()), 0, "a lane that nobody knows of"),
            Err(Killed) => {
                region.reap(a());
                assert_eq!(lanes_in(&region, 0, a()), 0, "a lane of the dead remains");
            }
        }
        if region.extent(0).unwrap().epoch() == 0 {
            region.set_hint(X);
        }
        assert_whole(&region);
    });
}

#[test]
fn an_extent_is_not_taken_from_under_an_allocation() {
    allocation_against_retirement(0, 0);
}

#[test]
fn an_allocation_dies_while_its_extent_changes_hands() {
    (1..=7).for_each(|ka| allocation_against_retirement(ka, 0));
}

#[test]
fn the_daemon_dies_while_it_retires() {
    (1..=12).for_each(|kc| allocation_against_retirement(0, kc));
}

/// B is about to accept block 4 of 64 bytes, which was announced by somebody who died. Meanwhile the extent goes to
/// blocks of 2048 bytes, and the second of those, which has the same word and by chance the same generation, is sent to
/// B. It is delivered once, under its own number.
#[test]
fn an_acceptance_sleeps_through_a_retirement() {
    model_within(1, || {
        let region = Arc::new(Region::for_retirement(1, 8));
        region.bind(0, class(64));
        let stale = BlockId::new(4);
        region.slot(b(), 0).store(Slot::full(0, 0, c(), 2, stale).bits(), SeqCst);
        region.endpoint(b()).unwrap().tail().store(1, SeqCst);
        let rb = region.clone();
        let receiver = thread::spawn(move || {
            let mut head = head(&rb, b());
            let got = rb.receive(&mut head).unwrap().map(|(block, _)| block);
            (head, got)
        });
        assert!(region.retire(c(), 0));
        assert!(region.bind(0, class(2048)));
        let mut blocks = Vec::new();
        assert!(region.take(a(), class(2048), 2, &mut Cursor::default(), &mut blocks));
        assert_eq!(blocks, [BlockId::new(0), BlockId::new(1)]);
        region.send(a(), blocks[1], to_b(), Pass::Move).unwrap();
        let (mut head, got) = receiver.join().unwrap();
        let mut got: Vec<BlockId> = got.into_iter().collect();
        got.extend(drain(&region, &mut head));
        assert_eq!(got, [blocks[1]]);
        assert_eq!(lanes(&region, blocks[1], Lane::holder(b())), 1);
        assert_eq!(lanes_in(&region, 0, b()), 1);
    });
}

/// The daemon binds a run of two extents while A binds one for itself; it dies at point `k` (0: never).
fn run_against_bind(k: u32) {
    model_within(2, move || {
        let region = Arc::new(Region::for_retirement(2, 1));
        let ra = region.clone();
        let member = thread::spawn(move || take_or_bind(&ra, a()));
        let run = dying_at(k, || region.bind_run(0, class(8192)));
        if run == Err(Killed) {
            region.reap(c());
            region.repair(c());
        }
        let got = member.join().unwrap();
        match region.class_of(0) {
            Some(large) if large == class(8192) => {
                assert_eq!(region.extent(1).unwrap().used(), Some(Use::Follows(0)));
                assert_eq!(got, None, "both have the same bytes");
            }
            _ => assert_ne!(run, Ok(true)),
        }
        if let Some(block) = got {
            assert_eq!(lanes(&region, block, Lane::holder(a())), 1);
        }
        assert_whole(&region);
    });
}

#[test]
fn a_run_is_bound_whole_or_not_at_all() {
    (0..=5).for_each(run_against_bind);
}

/// The daemon takes a run apart, dies at point `k` (0: never), while A looks for an extent.
#[test]
fn a_run_is_taken_apart() {
    for k in 0..=9 {
        model_within(2, move || {
            let region = Arc::new(Region::for_retirement(2, 1));
            assert!(region.bind_run(0, class(8192)));
            let ra = region.clone();
            let member = thread::spawn(move || take_or_bind(&ra, a()));
            let retired = dying_at(k, || region.retire(c(), 0));
            if retired == Err(Killed) {
                region.reap(c());
                region.repair(c());
            }
            if let Some(block) = member.join().unwrap() {
                assert_eq!(lanes(&region, block, Lane::holder(a())), 1);
            }
            if retired == Ok(true) {
                assert_ne!(region.class_of(0), Some(class(8192)));
            }
            assert_whole(&region);
        });
    }
}

/// Somebody who waits for a free block hears of it, or finds it.
#[test]
fn no_freed_block_goes_unheard() {
    model(|| {
        let region = pool(1, held_by(&[a()]));
        let other = region.clone();
        let thread = thread::spawn(move || other.release(a(), X).unwrap());
        let before = region.freed().load(SeqCst);
        region.freed_waiters().fetch_add(1, SeqCst);
        loom::sync::atomic::fence(SeqCst);
        let found = take(&region, c());
        thread.join().unwrap();
        assert!(found || region.freed().load(SeqCst) != before, "asleep for ever");
    });
}

/// Somebody who waits for room in an inbox hears of it, or finds it.
#[test]
fn no_room_goes_unheard() {
    model_within(2, || {
        let region = pool(4, held_by(&[a()]));
        for block in [X, Y] {
            region.send(a(), block, to_b(), Pass::Move).unwrap();
        }
        let other = region.clone();
        let thread = thread::spawn(move || other.receive(&mut head(&other, b())).unwrap().unwrap());
        let door = region.endpoint(b()).unwrap();
        let before = door.room().load(SeqCst);
        door.room_waiters().fetch_add(1, SeqCst);
        loom::sync::atomic::fence(SeqCst);
        let sent = region.send(a(), BlockId::new(2), to_b(), Pass::Move).is_ok();
        thread.join().unwrap();
        assert!(sent || door.room().load(SeqCst) != before, "asleep for ever");
    });
}
