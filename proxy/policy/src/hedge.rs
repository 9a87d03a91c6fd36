//! When an upstream has taken so long that another should be asked alongside.
//!
//! What "so long" means is learned for each row from its good answers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Never sooner: a pause of a database is no failure.
pub const SOONEST: Duration = Duration::from_millis(400);
/// Never later: this is when a caller is held.
pub const LATEST: Duration = Duration::from_millis(2500);
/// Times the 99th percentile.
const FACTOR: u32 = 3;
/// Good answers below which nothing is known.
const ENOUGH: u32 = 200;
/// Good answers after which older ones count half.
const MANY: u32 = 4096;
/// How often the percentile is worked out again, in good answers.
const EVERY: u32 = 64;
/// Four buckets for each power of two of milliseconds, up to 16 s.
const BUCKETS: usize = 56;

/// How long a row's good answers take.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU32; BUCKETS],
    count: AtomicU32,
    p99_ms: AtomicU32,
}

// === impl Latency ===

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            count: AtomicU32::new(0),
            p99_ms: AtomicU32::new(0),
        }
    }
}

impl Latency {
    /// A good answer took this long. Several threads may say so at once; what little is lost when
    /// they do does not move a percentile.
    pub fn note(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(EVERY) && count >= ENOUGH {
            self.p99_ms.store(self.percentile(), Ordering::Relaxed);
        }
        if count >= MANY {
            self.count.store(count / 2, Ordering::Relaxed);
            for bucket in &self.buckets {
                bucket.store(bucket.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    /// The time that 99 of 100 good answers take at most; none while too few are known.
    pub fn p99(&self) -> Option<Duration> {
        let ms = self.p99_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms.into()))
    }

    /// After how long another upstream is asked alongside.
    pub fn hedge_after(&self) -> Duration {
        self.p99().map_or(LATEST, |p99| (p99 * FACTOR).clamp(SOONEST, LATEST))
    }

    fn percentile(&self) -> u32 {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let total: u32 = counts.iter().sum();
        let mut above = total / 100;
        for (index, count) in counts.iter().enumerate().rev() {
            if *count > above {
                return upper_edge(index);
            }
            above -= count;
        }
        0
    }
}

/// The bucket of a time: the power of two of its milliseconds, and the quarter within it.
fn bucket(took: Duration) -> usize {
    let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX).max(1);
    let power = ms.ilog2();
    let quarter = if power >= 2 { (ms >> (power - 2)) & 3 } else { 0 };
    ((power * 4 + quarter) as usize).min(BUCKETS - 1)
}

/// The longest time that falls into a bucket, in milliseconds.
fn upper_edge(index: usize) -> u32 {
    let (power, quarter) = (index as u32 / 4, index as u32 % 4);
    if power >= 2 { ((4 + quarter + 1) << (power - 2)) - 1 } else { (2 << power) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn nothing_is_hedged_early_before_enough_is_known() {
        let latency = Latency::default();
        for _ in 0..ENOUGH - 1 {
            latency.note(ms(5));
        }
        assert_eq!((latency.p99(), latency.hedge_after()), (None, LATEST));
        for _ in 0..EVERY {
            latency.note(ms(5));
        }
        assert_eq!((latency.p99(), latency.hedge_after()), (Some(ms(5)), SOONEST));
    }

    #[test]
    fn three_times_the_99th_percentile_within_bounds() {
        for (usual, rare, after) in
            [(5, 5, SOONEST), (100, 250, ms(765)), (5, 9000, LATEST), (3000, 3000, LATEST)]
        {
            let latency = Latency::default();
            for n in 0..2048 {
                latency.note(ms(if n % 50 == 0 { rare } else { usual }));
            }
            assert_eq!(latency.hedge_after(), after, "{usual} {rare}");
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let latency = Latency::default();
        for _ in 0..MANY {
            latency.note(ms(2000));
        }
        for _ in 0..40 * MANY {
            latency.note(ms(10));
        }
        assert_eq!(latency.hedge_after(), SOONEST);
    }

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket(n in 1u64..16_000) {
            let index = bucket(ms(n));
            prop_assert!(n <= u64::from(upper_edge(index)));
            prop_assert!(index == 0 || bucket(ms(u64::from(upper_edge(index)))) == index);
        }
    }
}
