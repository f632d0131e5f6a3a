//! A small mutator for the bounded run: what libFuzzer does, without coverage.

/// Xorshift: repeatable.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }
}

/// Bytes that bounds are made of.
const EDGES: [u32; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// One to eight changes of `data`.
pub fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 + random.below(8) {
        let at = random.below(data.len());
        match random.below(7) {
            0 => data.insert(at.min(data.len()), random.below(256) as u8),
            1 if !data.is_empty() => {
                data.remove(at);
            }
            2 | 3 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            4 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                for (to, from) in data.iter_mut().skip(at).zip(edge) {
                    *to = from;
                }
            }
            5 => {
                let from = random.below(other.len());
                let piece =
                    other.get(from..(from + random.below(64)).min(other.len())).unwrap_or_default().to_vec();
                data.splice(at.min(data.len())..at.min(data.len()), piece);
            }
            _ => data.truncate(random.below(data.len() + 1)),
        }
    }
    data.truncate(4096);
}
