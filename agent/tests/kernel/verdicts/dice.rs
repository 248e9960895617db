//! Chance that comes out the same each time (SplitMix64), on every kernel.

pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.roll() % all.len() as u64;
        all[usize::try_from(index).unwrap_or_default()]
    }

    /// Once in `n` times.
    pub(super) fn is_one_in(&mut self, n: u64) -> bool {
        self.roll().is_multiple_of(n)
    }
}
