//! Models of what one receiver gets from one sender: in the order in which it was sent.

use super::*;

/// A shares X, which has no lane left: refused, and its hint is withdrawn. Then A moves Y, then somebody lets go of X,
/// and A shares X after all. B, who may have stalled at the first hint all the while, must not take X for it.
#[test]
fn what_was_refused_does_not_arrive_early() {
    model(|| {
        let region = Arc::new(Region::for_order(2, held_by(&[a(), c(), c(), c()])));
        let other = region.clone();
        let receiver = thread::spawn(move || {
            let mut head = head(&other, b());
            let got: Vec<_> = (0..2).filter_map(|_| other.receive(&mut head).unwrap()).collect();
            (head, got)
        });
        assert_eq!(region.send(a(), X, to_b(), Pass::Share), Err(SendFailure::FanOut));
        region.send(a(), Y, to_b(), Pass::Move).unwrap();
        // (Without loading the word first, if that works: the model checker sees a race only with the last access to it,
        // and here B's is meant.)
        let (full, free) = (held_by(&[a(), c(), c(), c()]), held_by(&[a(), c(), c()]));
        if Word::swap(region.word(region.place(X).unwrap()), full, free).is_err() {
            region.release(c(), X).unwrap();
        }
        region.send(a(), X, to_b(), Pass::Share).unwrap();
        let (mut head, got) = receiver.join().unwrap();
        let mut got: Vec<_> = got.into_iter().map(|(block, _)| block).collect();
        got.extend(drain(&region, &mut head));
        assert_eq!(got, [Y, X], "as sent");
    });
}

/// Newest wins, but the new block has no lane left: refused, and both old messages stay.
#[test]
fn what_is_refused_costs_no_old_message() {
    model(|| {
        let z = BlockId::new(2);
        let region = pool(4, held_by(&[a(), c(), c(), c()]));
        for block in [X, Y] {
            region.send(a(), block, to_b(), Pass::Move).unwrap();
        }
        assert_eq!(region.send_newest(a(), z, to_b(), Pass::Share), Err(SendFailure::FanOut));
        assert_eq!(drain(&region, &mut head(&region, b())), [X, Y]);
    });
}
