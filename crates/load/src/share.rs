//! Which connection sends the next request.
//!
//! Without skew all are alike. With skew, some are *hot*: the requests are dealt out so that after any number of them the
//! hot ones have had their share to within one request, each group in turn. In a closed loop the hot connections run by
//! themselves, and each request of theirs earns the others their share.

use crate::plan::{Hot, Place};

/// The deal.
#[derive(Debug)]
pub(crate) struct Shares {
    hot: Ring,
    cold: Ring,
    /// Requests that hot ones send, of all.
    share: f64,
    /// How far the hot ones are behind their share, in requests.
    owed_hot: f64,
    /// The same for the others, in a closed loop.
    owed_cold: f64,
}

#[derive(Debug)]
struct Ring {
    members: Vec<usize>,
    next: usize,
}

impl Ring {
    /// Whose turn it is; nobody's in an empty ring.
    fn turn(&mut self) -> Option<usize> {
        let member = *self.members.get(self.next)?;
        self.next = (self.next + 1) % self.members.len();
        Some(member)
    }
}

impl Shares {
    /// For so many connections; without `hot` all are hot.
    pub(crate) fn new(connections: usize, hot: Option<Hot>) -> Self {
        let chosen: Vec<bool> = match hot {
            None => vec![true; connections],
            Some(hot) => choose(connections, hot),
        };
        let group = |wanted: bool| Ring {
            members: (0..connections).filter(|index| chosen[*index] == wanted).collect(),
            next: 0,
        };
        let share = hot.map_or(1.0, |hot| hot.requests);
        Shares { hot: group(true), cold: group(false), share, owed_hot: 0.0, owed_cold: 0.0 }
    }

    /// Whether each connection is hot.
    pub(crate) fn is_hot(&self, connections: usize) -> Vec<bool> {
        let mut hot = vec![false; connections];
        self.hot.members.iter().for_each(|index| hot[*index] = true);
        hot
    }

    /// Open loop: who sends the next request.
    pub(crate) fn next(&mut self) -> usize {
        self.owed_hot += self.share;
        let turn = if self.owed_hot >= 0.5 || self.cold.members.is_empty() {
            self.owed_hot -= 1.0;
            self.hot.turn()
        } else {
            self.cold.turn()
        };
        turn.unwrap_or(0) // there is at least one connection, and the hot ones are never nobody
    }

    /// Closed loop: a hot connection has sent a request.
    pub(crate) fn earn(&mut self) {
        self.owed_cold += (1.0 - self.share) / self.share;
    }

    /// Closed loop: which of the others has earned a request. To be asked until it says nobody.
    pub(crate) fn take_earned(&mut self) -> Option<usize> {
        if self.owed_cold < 1.0 {
            return None;
        }
        let turn = self.cold.turn()?;
        self.owed_cold -= 1.0;
        Some(turn)
    }
}

fn choose(connections: usize, hot: Hot) -> Vec<bool> {
    let wanted = ((connections as f64 * hot.connections).round() as usize).clamp(1, connections);
    let mut chosen = vec![false; connections];
    match hot.place {
        Place::Every(step) => {
            // Round and round, a different remainder each time, should one round not give enough.
            let order = (0..step).flat_map(|first| (first..connections).step_by(step));
            order.take(wanted).for_each(|index| chosen[index] = true);
        }
        Place::Random(seed) => {
            let mut order: Vec<usize> = (0..connections).collect();
            let mut state = seed;
            for at in 0..wanted {
                let rest = connections - at;
                order.swap(at, at + (random(&mut state) % rest as u64) as usize);
                chosen[order[at]] = true;
            }
        }
    }
    chosen
}

/// SplitMix64: enough to choose connections, and the same everywhere for the same seed.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(place: Place) -> Hot {
        Hot { connections: 0.1, requests: 0.9, place }
    }

    #[test]
    fn ten_percent_send_ninety_percent() {
        let mut shares = Shares::new(40, Some(hot(Place::Random(7))));
        let is_hot = shares.is_hot(40);
        assert_eq!(is_hot.iter().filter(|hot| **hot).count(), 4);
        let mut sent = [0_u32; 40];
        for _ in 0..4000 {
            sent[shares.next()] += 1;
        }
        for (index, sent) in sent.into_iter().enumerate() {
            assert_eq!(sent, if is_hot[index] { 900 } else { 11 + u32::from(sent == 12) }, "{index}");
        }
    }

    #[test]
    fn in_a_closed_loop_each_hot_request_earns_the_others_their_share() {
        let mut shares = Shares::new(40, Some(hot(Place::Every(4))));
        let is_hot = shares.is_hot(40);
        assert!(is_hot.iter().enumerate().all(|(index, hot)| *hot == [0, 4, 8, 12].contains(&index)));
        let earned = |shares: &mut Shares, requests| {
            let mut turns = Vec::new();
            for _ in 0..requests {
                shares.earn();
                turns.extend(std::iter::from_fn(|| shares.take_earned()));
            }
            turns
        };
        let turns = earned(&mut shares, 9000);
        assert!((999..=1000).contains(&turns.len()), "{}", turns.len());
        assert!(turns.iter().all(|index| !is_hot[*index]));
        // The other way round, several are earned at once.
        let few = Hot { requests: 0.25, ..hot(Place::Every(1)) };
        let turns = earned(&mut Shares::new(40, Some(few)), 100).len();
        assert!((299..=300).contains(&turns), "{turns}");
    }

    #[test]
    fn without_skew_all_take_turns() {
        let mut shares = Shares::new(3, None);
        let turns: Vec<usize> = (0..6).map(|_| shares.next()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        shares.earn();
        assert_eq!(shares.take_earned(), None);
    }

    #[test]
    fn a_seed_chooses_the_same_ones_again() {
        let chosen = |seed| Shares::new(1000, Some(hot(Place::Random(seed)))).is_hot(1000);
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        // More than one in four, taken from every fourth: the next remainder helps out.
        let many = Hot { connections: 0.5, ..hot(Place::Every(4)) };
        assert_eq!(
            Shares::new(8, Some(many)).is_hot(8),
            [true, true, false, false, true, true, false, false]
        );
    }
}
