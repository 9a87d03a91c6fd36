//! Chance that can be had again: one number decides everything that is left to it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::str::FromStr;

/// What all chance of a run comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

/// Throws of dice for one purpose; other purposes do not disturb them.
#[derive(Debug)]
pub struct Dice(fastrand::Rng);

// === impl Seed ===

impl Seed {
    /// The seed in the environment's `SIM_SEED`, or a new one.
    pub fn from_environment() -> Result<Seed, String> {
        match std::env::var("SIM_SEED") {
            Ok(text) => text.parse().map_err(|fault| format!("SIM_SEED: {fault}")),
            Err(_) => Ok(Seed(fastrand::u64(..))),
        }
    }

    /// A seed that comes from this one and has nothing else in common with it.
    pub fn child(self, n: u64) -> Seed {
        Seed(self.dice("child", n).0.u64(..))
    }

    /// Dice for the `n`th thing of a kind.
    pub fn dice(self, purpose: &str, n: u64) -> Dice {
        let mut hasher = DefaultHasher::new();
        (self.0, purpose, n).hash(&mut hasher);
        Dice(fastrand::Rng::with_seed(hasher.finish()))
    }
}

impl From<u64> for Seed {
    fn from(number: u64) -> Seed {
        Seed(number)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Hexadecimal, with or without `0x`.
impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Seed, String> {
        let digits = text.trim_start_matches("0x");
        u64::from_str_radix(digits, 16)
            .map(Seed)
            .map_err(|_| format!("{text:?} is no seed: write up to 16 hexadecimal digits"))
    }
}

// === impl Dice ===

impl Dice {
    /// Dice of their own for something that happens beside this.
    pub fn fork(&mut self) -> Dice {
        Dice(fastrand::Rng::with_seed(self.0.u64(..)))
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// A number from `from` to `to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.0.f64()
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    /// An identifier of Twilio's: two letters and 32 hexadecimal digits.
    pub fn sid(&mut self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", self.0.u64(..), self.0.u64(..))
    }

    /// A random UUID, as an idempotency token is written.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.0.u64(..), self.0.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 48 & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same() {
        let seed: Seed = "0x2f1a".parse().unwrap();
        assert_eq!(seed.to_string(), "0x2f1a");
        assert_eq!(seed.dice("call", 1).sid("CA"), seed.dice("call", 1).sid("CA"));
        assert_ne!(seed.dice("call", 1).sid("CA"), seed.dice("call", 2).sid("CA"));
        assert_ne!(seed.dice("call", 1).sid("CA"), seed.dice("room", 1).sid("CA"));
        assert_eq!(seed.dice("token", 1).uuid().len(), 36);
        assert!("seven".parse::<Seed>().is_err());
    }
}
