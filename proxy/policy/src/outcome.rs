//! What came back from one attempt, and what that says.
//!
//! Two questions are asked of an outcome and kept apart: may the visit be tried elsewhere (that
//! depends on whether the first upstream may have acted on it), and what does it say of the
//! upstream's health.

use crate::catalogue::Replay;
use crate::verdict::Grade;

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A judged document, or for an asynchronous row any 2xx.
    Good,
    /// The connection was refused, or no address was known.
    Refused,
    /// No connection in time.
    ConnectTimedOut,
    /// The TLS handshake failed.
    TlsFailed,
    /// A pooled connection turned out closed before a byte was written.
    Stale,
    /// The connection broke after the request was begun.
    Broken,
    /// No whole answer inside the attempt's slice.
    TimedOut,
    /// A status that is no success, without a promise that nothing ran.
    Status(u16),
    /// A status by which the upstream, or the network in front of it, says that nothing ran: 521,
    /// 523, 525, 526, or 503 with `Holdline-Not-Run: 1`.
    NotRun(u16),
    /// A success whose body is no TwiML document; the judge's reason is logged beside it.
    NotTwiml,
    /// As many attempts as allowed are in flight there already.
    Full,
}

/// Whether any byte of the request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Not one.
    Nothing,
    /// At least one, or it cannot be known.
    Something,
}

/// An attempt that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ended {
    /// What it came to.
    pub outcome: Outcome,
    /// Whether the upstream can have seen any of it.
    pub sent: Sent,
}

// === impl Ended ===

impl Ended {
    /// Whether the row's replay class allows another attempt after this one.
    pub fn allows_another(self, replay: Replay) -> bool {
        match (replay, self.outcome) {
            (_, Outcome::Good) => false,
            (Replay::Idempotent, _) => true,
            _ => !self.may_have_run(replay),
        }
    }

    /// Whether the upstream may have run the request, as far as a row of this class believes it. A row
    /// that only trusts what was never sent does not believe a promise that nothing ran.
    pub fn may_have_run(self, replay: Replay) -> bool {
        let promised = matches!(self.outcome, Outcome::NotRun(_)) && replay != Replay::Unsent;
        self.sent == Sent::Something && !promised
    }
}

// === impl Outcome ===

impl Outcome {
    /// What the outcome says of the upstream's health. `None` where it says nothing: an answer in
    /// the 400s is about the request, and a full upstream was not even asked.
    pub fn grade(self) -> Option<Grade> {
        match self {
            Outcome::Good => Some(Grade::Good),
            Outcome::Status(400..500) | Outcome::Full | Outcome::Stale => None,
            _ => Some(Grade::Bad),
        }
    }

    /// A short constant name, for metrics, logs and the response header.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Good => "good",
            Outcome::Refused => "refused",
            Outcome::ConnectTimedOut => "connect_timed_out",
            Outcome::TlsFailed => "tls_failed",
            Outcome::Stale => "stale_connection",
            Outcome::Broken => "broken",
            Outcome::TimedOut => "timed_out",
            Outcome::Status(300..400) => "status_3xx",
            Outcome::Status(400..500) => "status_4xx",
            Outcome::Status(500..600) => "status_5xx",
            Outcome::Status(_) => "status_other",
            Outcome::NotRun(_) => "not_run",
            Outcome::NotTwiml => "not_twiml",
            Outcome::Full => "full",
        }
    }

    /// Every name [`Outcome::name`] can give.
    pub const NAMES: [&'static str; 14] = [
        "good",
        "refused",
        "connect_timed_out",
        "tls_failed",
        "stale_connection",
        "broken",
        "timed_out",
        "status_3xx",
        "status_4xx",
        "status_5xx",
        "status_other",
        "not_run",
        "not_twiml",
        "full",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use Replay::{Idempotent, Refused, Unsent};

    const OUTCOMES: [Outcome; 14] = [
        Outcome::Good,
        Outcome::Refused,
        Outcome::ConnectTimedOut,
        Outcome::TlsFailed,
        Outcome::Stale,
        Outcome::Broken,
        Outcome::TimedOut,
        Outcome::Status(302),
        Outcome::Status(404),
        Outcome::Status(502),
        Outcome::Status(204),
        Outcome::NotRun(503),
        Outcome::NotTwiml,
        Outcome::Full,
    ];

    #[test]
    fn what_may_follow_is_decided_for_every_cell() {
        for outcome in OUTCOMES {
            for sent in [Sent::Nothing, Sent::Something] {
                let got = [Unsent, Refused, Idempotent]
                    .map(|r| Ended { outcome, sent }.allows_another(r));
                let expect = match (outcome, sent) {
                    (Outcome::Good, _) => [false, false, false],
                    (_, Sent::Nothing) => [true, true, true],
                    (Outcome::NotRun(_), _) => [false, true, true],
                    _ => [false, false, true],
                };
                assert_eq!(got, expect, "{outcome:?} {sent:?}");
            }
        }
    }

    #[test]
    fn only_what_the_upstream_did_counts_against_it() {
        for outcome in OUTCOMES {
            let expect = match outcome {
                Outcome::Good => Some(Grade::Good),
                Outcome::Status(404) | Outcome::Full | Outcome::Stale => None,
                _ => Some(Grade::Bad),
            };
            assert_eq!(outcome.grade(), expect, "{outcome:?}");
        }
    }

    #[test]
    fn every_name_is_listed() {
        for outcome in OUTCOMES {
            assert!(Outcome::NAMES.contains(&outcome.name()), "{outcome:?}");
        }
    }
}
