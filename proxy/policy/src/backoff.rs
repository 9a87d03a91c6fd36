//! How long to wait before trying again: doubling from a first wait up to a cap, with jitter.

use std::time::Duration;

/// A doubling back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the second try.
    pub first: Duration,
    /// The longest wait.
    pub cap: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// The wait after `tries` tries (0: none yet), without jitter.
    pub fn wait(&self, tries: u32) -> Duration {
        let factor = 1u32.checked_shl(tries).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.cap)
    }

    /// Whether the wait after `tries` tries is as long as it gets.
    pub fn is_longest(&self, tries: u32) -> bool {
        self.wait(tries) == self.cap
    }
}

/// Shortens `wait` by up to `share` (0 to 1) of itself. `chance` is a number drawn evenly from 0 to 1.
///
/// Only ever shorter, so that a bound on the wait stays a bound.
pub fn jittered(wait: Duration, share: f64, chance: f64) -> Duration {
    wait.mul_f64(1.0 - share.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(8) };
        let waits: Vec<_> = (0..6).map(|n| backoff.wait(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        assert_eq!(backoff.wait(u32::MAX).as_secs(), 8);
    }

    proptest! {
        #[test]
        fn jitter_only_shortens(ms in 0u64..1_000_000, share in 0.0..1.0f64, chance in 0.0..1.0f64) {
            let wait = Duration::from_millis(ms);
            let got = jittered(wait, share, chance);
            prop_assert!(got <= wait);
            prop_assert!(got >= wait.mul_f64(1.0 - share) || share == 0.0);
        }
    }
}
