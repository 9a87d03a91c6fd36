//! Overload: an origin that can do so much is offered twice as much, by callers who come at a steady pace
//! whatever becomes of those before them.
//!
//! Such an origin serves as well as it ever did. Whoever takes it for a failure, because answers and probes
//! come late, gives up what it can do; whoever sends it everything gets every answer too late. What is
//! wanted is a proxy that sends it what it can do, and everybody else to the standby at once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdline_tests::tools::free_address;

use crate::callers::{Call, End, come, share, waits};
use crate::capacity::{Capacity, PROBE_WHEN_BUSY};
use crate::peers::{Contender, Settings};
use crate::process::{Ran, Upstream};
use crate::run::SETTLING;

/// What the origin can do: 40 callers a second. A full line is more than six seconds long.
const CAPACITY: Capacity = Capacity { workers: 8, takes: Duration::from_millis(200), line: 256 };
/// What proxies with a limit are told that it can take at once: all workers, and some whose turn is next.
const CAP: u32 = 12;
/// For so long it is offered twice of what it can do.
const LENGTH: Duration = Duration::from_secs(20);
/// A document that comes later is worth nothing.
const IN_TIME: Duration = Duration::from_secs(4);
/// A proxy that sends the origin nothing for so long has stopped to use it.
pub(crate) const UNUSED: Duration = Duration::from_secs(1);

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Borne {
    /// The origin's documents that came in time, as a share of what it can do.
    pub(crate) goodput: f64,
    /// Callers with the origin's document, whenever it came.
    pub(crate) by_origin: usize,
    /// And with the standby's.
    pub(crate) by_standby: usize,
    /// Held on the way, whatever came then.
    pub(crate) held: usize,
    pub(crate) dropped: usize,
    pub(crate) lost: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The longest time in which no request reached the origin.
    pub(crate) pause: Duration,
    /// Whether the edge said that the origin was down (of the edge only).
    pub(crate) was_down: Option<bool>,
    /// Whether it doubted it: answers were quick, and probes were not (of the edge only).
    pub(crate) was_doubted: Option<bool>,
}

/// Makes one run.
pub(crate) async fn run(contender: Contender) -> anyhow::Result<Borne> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let origin = Upstream::start(folder, "origin", free_address()?, Some(CAPACITY)).await?;
    let standby = Upstream::start(folder, "standby", free_address()?, None).await?;
    // By default nobody has a limit that is near this.
    let cap = (contender.settings == Settings::Best).then_some(CAP);
    let proxy = contender.start(folder, origin.address, standby.address, cap)?;
    tokio::time::sleep(SETTLING).await;
    let start = Instant::now();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let calls = come(proxy.address, offered(), LENGTH, start).await?;
    let pause = longest_pause(&origin.log()?, begun);
    let said = (proxy.said_down(), proxy.said_doubtful());
    Ok(measure(&calls, pause, said))
}

/// Callers a second: twice of what the origin can do.
pub(crate) fn offered() -> u32 {
    let millis = u32::try_from(CAPACITY.takes.as_millis()).unwrap_or(u32::MAX);
    2 * CAPACITY.workers * 1000 / millis
}

/// The run in words.
pub(crate) fn words() -> String {
    let Capacity { workers, takes, line } = CAPACITY;
    format!(
        "The origin does {workers} requests at once and takes {} ms for each, which is {:.0} a second; {line} \
         wait for their turn, and nobody else hears anything. A probe takes {} s while all of it is busy, which \
         is longer than anybody here waits for one. For {} s it is offered {} \
         callers a second, each of whom waits for at most 15 s. The edge is told `max_in_flight = {CAP}`, \
         and so are the others in their best settings, each in its own words; by default none of them has \
         a limit that is near it.",
        takes.as_millis(),
        CAPACITY.a_second(),
        PROBE_WHEN_BUSY.as_secs(),
        LENGTH.as_secs(),
        offered(),
    )
}

fn measure(
    calls: &[Call],
    pause: Duration,
    (was_down, was_doubted): (Option<bool>, Option<bool>),
) -> Borne {
    let ended = |end: End| calls.iter().filter(move |call| call.end == end);
    let good = ended(End::Origin)
        .filter(|call| call.ended - call.begun <= IN_TIME && call.ended <= LENGTH)
        .count();
    let waits = waits(calls);
    Borne {
        goodput: good as f64 / LENGTH.as_secs_f64() / CAPACITY.a_second(),
        by_origin: ended(End::Origin).count(),
        by_standby: ended(End::Standby).count(),
        held: calls.iter().filter(|call| call.was_held()).count(),
        dropped: ended(End::Dropped).count(),
        lost: ended(End::Lost).count(),
        p50: share(&waits, 50).unwrap_or_default(),
        p99: share(&waits, 99).unwrap_or_default(),
        pause,
        was_down,
        was_doubted,
    }
}

/// The longest time in which nothing ran, of the time for which callers came.
fn longest_pause(ran: &[Ran], begun: Duration) -> Duration {
    let since = ran.iter().filter_map(|ran| ran.at.checked_sub(begun));
    let mut last = Duration::ZERO;
    let mut longest = Duration::ZERO;
    for at in since.filter(|at| *at < LENGTH).chain([LENGTH]) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
    }
    longest
}
