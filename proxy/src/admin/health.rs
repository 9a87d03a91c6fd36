//! What is believed of the upstreams, for the status page and for metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdline_policy::{Cause, Moment, Phase, Upstream, Verdict};
use serde_json::{Map, Value, json};

use crate::Holdline;
use crate::clock::millis;

/// What is shown of one upstream.
pub(super) fn upstream(holdline: &Holdline, which: Upstream) -> Value {
    let relay = &holdline.relay;
    let (health, thresholds) = (relay.watch.health(), relay.watch.thresholds());
    let (verdict, target) = (health.of(which), &relay.targets[which.index()]);
    let now = relay.clock.now();
    let last_change = health.last_change(which).map(|(at, change)| {
        json!({
            "from": change.from.name(),
            "to": change.to.name(),
            "reason": change.reason.to_string(),
            "ms_ago": millis(now.since(at)),
        })
    });
    let window = verdict.window(now, &thresholds);
    let mut shown = believed(verdict, now);
    let more = json!({
        "host": target.config.host,
        "address": target.address().map(|address| address.to_string()),
        "proven_ms_ago": verdict.proven().map(|at| millis(now.since(at))),
        "stale": is_stale(holdline, verdict, now),
        "disagreement": verdict.disagreement(now, &thresholds).map(Cause::name),
        "attempts_in_flight": target.in_flight(),
        "slow_share": verdict.slow_share(now, &thresholds),
        "window_bad": window.bad,
        "window_of": window.total(),
        "last_change": last_change,
        "rows": health
            .rows_of(which)
            .map(|(row, verdict)| (relay.watch.name_of(row), believed(verdict, now)))
            .collect::<Map<_, _>>(),
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    shown
}

/// Brings the gauges up to date that depend on the time.
pub(super) fn show(holdline: &Holdline) {
    let relay = &holdline.relay;
    let (metrics, now) = (&relay.metrics, relay.clock.now());
    let (health, thresholds) = (relay.watch.health(), relay.watch.thresholds());
    for which in Upstream::ALL {
        let (verdict, name) = (health.of(which), which.name());
        let disagreement = verdict.disagreement(now, &thresholds).map(Cause::name);
        for bad in Cause::NAMES {
            let on = disagreement == Some(bad);
            metrics.disagreement.with_label_values(&[name, bad]).set(on.into());
        }
        metrics.slow_share.with_label_values(&[name]).set(verdict.slow_share(now, &thresholds));
        let proven = verdict.proven().map_or(0.0, |at| on_the_wall(at, now));
        metrics.proven.with_label_values(&[name]).set(proven);
        let stale = is_stale(holdline, verdict, now);
        metrics.stale.with_label_values(&[name]).set(stale.into());
    }
}

/// What is believed of an upstream or of a row that fails alone, and what that rests on.
fn believed(verdict: &Verdict, now: Moment) -> Value {
    let (cause, hold_down_ms) = match verdict.phase() {
        Phase::Down { cause, until } => (Some(cause.name()), Some(millis(until.since(now)))),
        _ => (None, None),
    };
    json!({
        "verdict": verdict.phase().name(),
        "cause": cause,
        "since_ms": millis(now.since(verdict.since())),
        "hold_down_ms": hold_down_ms,
        "attempts_hanging": verdict.hanging(),
        "good_probes_in_a_row": verdict.probe_streak().0,
        "bad_probes_in_a_row": verdict.probe_streak().1,
        "good_attempts_in_a_row": verdict.live_streak().0,
        "bad_attempts_in_a_row": verdict.live_streak().1,
        "flaps": verdict.flaps(),
    })
}

/// Whether an upstream was not proven lately. In the first moments nobody can have been.
fn is_stale(holdline: &Holdline, verdict: &Verdict, now: Moment) -> bool {
    let since = verdict.proven().unwrap_or(verdict.since());
    now.since(since) > holdline.stale_after
}

/// A moment by the clock on the wall, in seconds since 1970.
fn on_the_wall(moment: Moment, now: Moment) -> f64 {
    let ago: Duration = now.since(moment);
    let then = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
    then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
