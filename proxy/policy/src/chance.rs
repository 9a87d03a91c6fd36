//! Chance as an argument: SplitMix64, small, seeded, and the same on every machine.
//!
//! For simulations, which must run the same way again. What must not be guessed is not drawn from it.

/// Numbers that look drawn by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(u64);

// === impl Chance ===

impl Chance {
    /// The numbers that follow from a seed.
    pub const fn of(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is above zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// A number from 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}
