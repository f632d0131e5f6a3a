//! Size classes: 64 B · 2^k · {1, 1¼, 1½, 1¾}, so that at most a fifth of a block is wasted beyond rounding.
//!
//! Classes from 4 KiB up are rounded to whole pages (a block starts on a page), smaller ones to 64 bytes (a block
//! starts on a cache line). Rounding makes some small classes equal (80 and 112 bytes become 128); the first one
//! that is large enough is used, so the later twins stay empty. A 1080p frame of 3,110,656 bytes takes a block of
//! 3,145,728.

/// Number of classes: 64 B up to 256 MiB.
const COUNT: usize = 89;

/// The class by the number of 64-byte lines, up to 4 KiB, …
const FOR_LINES: [u8; 65] = by_units(64);
/// … and by the number of pages, up to 4 MiB.
const FOR_PAGES: [u8; 1025] = by_units(4096);

const fn by_units<const N: usize>(unit: usize) -> [u8; N] {
    let mut classes = [0; N];
    let mut units = 0;
    while units < N {
        if let Some(Class(class)) = Class::search(units * unit) {
            classes[units] = class;
        }
        units += 1;
    }
    classes
}

/// A size class, index into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u8);

const SIZES: [u32; COUNT] = {
    let mut sizes = [0; COUNT];
    let mut k = 0;
    while k < COUNT {
        let size = (64u32 << (k / 4)) / 4 * (4 + (k % 4) as u32);
        let unit = if size >= 4096 { 4096 } else { 64 };
        sizes[k] = size.div_ceil(unit) * unit;
        k += 1;
    }
    sizes
};

impl Class {
    /// Number of classes.
    pub const COUNT: usize = COUNT;
    /// The first one.
    pub const SMALLEST: Class = Class(0);

    /// The smallest class whose blocks have at least `len` bytes; `None` above 256 MiB.
    #[inline]
    pub fn for_len(len: usize) -> Option<Self> {
        let known =
            if len <= 4096 { FOR_LINES.get(len.div_ceil(64)) } else { FOR_PAGES.get(len.div_ceil(4096)) };
        match known {
            Some(&class) => Some(Class(class)),
            None => Self::search(len),
        }
    }

    const fn search(len: usize) -> Option<Self> {
        // The highest bit and the two below it name the class of the unrounded size. Rounding makes neighbours equal or
        // large enough, so the answer may be up to three places before it.
        let last = if len < 65 { 64 } else { len as u64 - 1 };
        let octave = last.ilog2();
        let mut k = (octave as usize - 6) * 4 + (last >> (octave - 2) & 3) as usize + 1;
        if k >= COUNT {
            return None;
        }
        if octave >= 14 {
            return Some(Class(k as u8)); // a quarter of it is whole pages: nothing was rounded
        }
        while k > 0 && SIZES[k - 1] as usize >= len {
            k -= 1;
        }
        Some(Class(k as u8))
    }

    /// From its number, `None` if there is no such class.
    #[inline]
    pub fn from_index(k: u64) -> Option<Self> {
        (k < COUNT as u64).then_some(Class(k as u8))
    }

    /// Its number, below [`Class::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of each block.
    #[inline]
    pub fn size(self) -> usize {
        SIZES[self.index()] as usize
    }

    /// All larger classes, in order.
    pub fn larger(self) -> impl Iterator<Item = Class> {
        (self.0 + 1..COUNT as u8).map(Class)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_length_fits_its_class_and_wastes_little() {
        for len in (1..100_000).chain((100_000..(256 << 20)).step_by(9973)) {
            let class = Class::for_len(len).unwrap();
            let size = class.size();
            let unit = if size >= 4096 { 4096 } else { 64 };
            assert!(size >= len && size.is_multiple_of(unit));
            assert!(size <= len + len / 4 + unit, "{len} bytes got {size}");
            assert!(class.index() == 0 || SIZES[class.index() - 1] < len as u32);
        }
        assert_eq!(Class::for_len(0), Some(Class(0)));
        assert_eq!(Class::for_len(256 << 20).unwrap().size(), 256 << 20);
        assert_eq!(Class::for_len((256 << 20) + 1), None);
        assert_eq!(Class::from_index(COUNT as u64), None);
    }

    #[test]
    fn a_full_hd_frame_wastes_a_hundredth() {
        assert_eq!(Class::for_len(1920 * 1080 * 3 / 2 + 256).unwrap().size(), 3 << 20);
    }
}
