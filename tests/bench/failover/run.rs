//! One run: callers come at a steady pace, and in the middle the origin fails for eight seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use holdline_tests::tools::free_address;

use crate::callers::{Call, End, Row, come, share, waits};
use crate::peers::Contender;
use crate::process::Upstream;
use crate::upstream::Manner;

/// Before the failure.
const BEFORE: Duration = Duration::from_secs(5);
/// The failure.
const FAILURE: Duration = Duration::from_secs(8);
/// The whole run.
const LENGTH: Duration = Duration::from_secs(25);
/// For probes to have come before the first caller.
pub(crate) const SETTLING: Duration = Duration::from_millis(2500);
/// So many calls in a row make a state; where a failure shows at once, so many that do not meet it.
const IN_A_ROW: usize = 10;
const SPARED: usize = 3;
/// What nobody waits for.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A way for the origin to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It behaves like this.
    Behaves(Manner),
    /// It is killed, and started again.
    Killed,
    /// It is frozen, and thawed.
    Frozen,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) steered: usize,
    /// Held on the way, whatever came then.
    pub(crate) held: usize,
    pub(crate) dropped: usize,
    /// Those of them whose row may be repeated.
    pub(crate) dropped_repeatable: usize,
    pub(crate) lost: usize,
    /// Requests that ran twice, on rows that must not.
    pub(crate) twice: usize,
    /// The same, on rows that may.
    pub(crate) twice_repeatable: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The 99th percentile of waits of calls begun in the failure, before and after it was detected.
    pub(crate) p99_undetected: Option<Duration>,
    pub(crate) p99_detected: Option<Duration>,
    /// When calls stopped to meet the failure, since it began; none if they never did.
    pub(crate) detected: Option<Duration>,
    /// Calls that reached the failing origin before that.
    pub(crate) met: usize,
    /// When the origin served all again, since it was good again; none if it did not.
    pub(crate) back: Option<Duration>,
    /// Of the calls begun in the failure that were held, those not steered in the end.
    pub(crate) held_in_vain: usize,
    /// Whether the edge said that the origin was down (of the edge only).
    pub(crate) was_down: Option<bool>,
}

/// All ways, in the order of the tables.
pub(crate) const FAILURES: [(&str, Failure); 12] = [
    ("refuses connections", Failure::Behaves(Manner::Refuse)),
    ("resets after reading", Failure::Behaves(Manner::Reset)),
    ("killed (-9), restarted", Failure::Killed),
    ("frozen (SIGSTOP)", Failure::Frozen),
    ("500 to everything", Failure::Behaves(Manner::Sick)),
    ("500, probes well", Failure::Behaves(Manner::Error)),
    ("200 with an error page, probes well", Failure::Behaves(Manner::Page)),
    ("hangs, probes well", Failure::Behaves(Manner::Hang)),
    ("half a body, probes well", Failure::Behaves(Manner::Half)),
    ("a byte a second, probes well", Failure::Behaves(Manner::Trickle)),
    ("10 s slow but good", Failure::Behaves(Manner::Slow)),
    ("alternately good and bad", Failure::Behaves(Manner::Alternate)),
];

// === impl Failure ===

impl Failure {
    /// Whether what is wrong shows by waiting; otherwise at once, in what comes back.
    pub(crate) fn shows_by_waiting(self) -> bool {
        let slow = [Manner::Hang, Manner::Trickle, Manner::Slow].map(Failure::Behaves);
        self == Failure::Frozen || slow.contains(&self)
    }
}

/// Makes one run.
pub(crate) async fn run(
    contender: Contender,
    failure: Failure,
    rate: u32,
) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let mut origin = Upstream::start(folder, "origin", free_address()?, None).await?;
    let standby = Upstream::start(folder, "standby", free_address()?, None).await?;
    let proxy = contender.start(folder, origin.address, standby.address, None)?;
    tokio::time::sleep(SETTLING).await;
    let start = Instant::now();
    let callers = tokio::spawn(come(proxy.address, rate, LENGTH, start));
    tokio::time::sleep_until((start + BEFORE).into()).await;
    origin.fail(failure).await?;
    let failed = start.elapsed();
    tokio::time::sleep_until((start + BEFORE + FAILURE).into()).await;
    origin.recover(failure, folder).await?;
    let recovered = start.elapsed();
    let mut calls = callers.await??;
    calls.sort_by_key(|call| call.begun);
    let ran = [origin.ran()?, standby.ran()?];
    Ok(measure(&calls, &ran, failure, failed, recovered, proxy.said_down()))
}

fn measure(
    calls: &[Call],
    ran: &[HashMap<String, usize>; 2],
    failure: Failure,
    failed: Duration,
    recovered: Duration,
    was_down: Option<bool>,
) -> Measured {
    let ended = |end: End| calls.iter().filter(move |call| call.end == end);
    let times = |call: &Call| ran.iter().filter_map(|ran| ran.get(&call.sid)).sum::<usize>();
    let twice = |row: Row| calls.iter().filter(|call| call.row == row && times(call) > 1).count();
    let all = waits(calls);
    let in_failure: Vec<&Call> =
        calls.iter().filter(|call| call.begun >= failed && call.begun < recovered).collect();
    let reached = |call: &Call| ran[0].contains_key(&call.sid);
    let meets = |call: &Call| match failure.shows_by_waiting() {
        true => call.waits.first().is_none_or(|wait| *wait > AT_ONCE),
        false => (reached(call) && call.end != End::Origin) || call.end == End::Lost,
    };
    // What was under way when the failure began does not count; it ends with the first that meets it.
    let spared = if failure.shows_by_waiting() { IN_A_ROW } else { SPARED };
    let free = in_failure.windows(spared).position(|row| !row.iter().any(|call| meets(call)));
    let (before, after) = in_failure.split_at(free.unwrap_or(in_failure.len()));
    let back = calls.iter().position(|call| call.begun >= recovered).and_then(|first| {
        let after = &calls[first..];
        let served =
            |row: &[Call]| row.iter().all(|call| call.end == End::Origin && !call.was_held());
        let at = after.windows(IN_A_ROW).position(served)?;
        Some(after[at].begun - recovered)
    });
    let held: Vec<_> = in_failure.iter().filter(|call| call.was_held()).collect();
    Measured {
        steered: ended(End::Origin).count() + ended(End::Standby).count(),
        held: calls.iter().filter(|call| call.was_held()).count(),
        dropped: ended(End::Dropped).count(),
        dropped_repeatable: ended(End::Dropped).filter(|call| call.row == Row::Idempotent).count(),
        lost: ended(End::Lost).count(),
        twice: twice(Row::Once),
        twice_repeatable: twice(Row::Idempotent),
        p50: share(&all, 50).unwrap_or_default(),
        p99: share(&all, 99).unwrap_or_default(),
        p99_undetected: share(&waits(before.iter().copied()), 99),
        p99_detected: free.and_then(|_| share(&waits(after.iter().copied()), 99)),
        detected: free.map(|at| in_failure[at].begun - failed),
        met: before.iter().filter(|call| meets(call) && reached(call)).count(),
        back,
        held_in_vain: held
            .iter()
            .filter(|call| !matches!(call.end, End::Origin | End::Standby))
            .count(),
        was_down,
    }
}
