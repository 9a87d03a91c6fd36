//! Answers that come after the caller was put on hold.
//!
//! What is held is remembered by its delivery id: still being asked, answered, or given up. The memory
//! is this process's alone and bounded in number and size; what is not in it is asked again where that
//! is allowed, so that losing it costs a caller at most another wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdline_policy::Moment;

use super::notice::Subject;
use crate::answer::Answer;
use crate::telemetry::Metrics;

/// Held visits remembered at once.
const MOST: usize = 20_000;
/// Bytes of late answers, and of the requests they answer, kept at once.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What has become of a held visit.
#[derive(Debug, Clone)]
pub enum Late {
    /// An upstream is still being asked.
    Running,
    /// Somebody has answered.
    Answered(Answer),
    /// Nobody has; whether an upstream may have run it.
    GivenUp {
        /// Whether an upstream may have run it.
        may_have_run: bool,
    },
}

/// The memory.
#[derive(Debug)]
pub struct LateAnswers {
    entries: Mutex<Entries>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Entries {
    by_delivery: HashMap<String, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    late: Late,
    subject: Subject,
    until: Moment,
    fetched: bool,
}

// === impl Late ===

impl Late {
    fn bytes(&self) -> usize {
        match self {
            Late::Answered(Answer::Document { document, .. }) => document.bytes().len(),
            _ => 0,
        }
    }
}

// === impl Entry ===

impl Entry {
    /// What is kept of the request and of the answer.
    fn bytes(&self) -> usize {
        self.subject.bytes() + self.late.bytes()
    }
}

// === impl LateAnswers ===

impl LateAnswers {
    /// An empty memory.
    pub fn new(metrics: Arc<Metrics>) -> LateAnswers {
        LateAnswers { entries: Mutex::default(), metrics }
    }

    /// Remembers that a held visit is still being asked, until a moment. False if there is no room.
    pub(super) fn begin(&self, delivery: &str, subject: Subject, until: Moment) -> bool {
        let mut entries = self.lock();
        let full = entries.bytes + subject.bytes() > MOST_BYTES;
        if full || entries.by_delivery.len() >= MOST {
            return false;
        }
        let entry = Entry { late: Late::Running, subject, until, fetched: false };
        entries.put(delivery, entry);
        true
    }

    /// Notes what became of it.
    pub fn end(&self, delivery: &str, late: Late) {
        let mut entries = self.lock();
        let too_much = entries.bytes + late.bytes() > MOST_BYTES;
        let Some(entry) = entries.by_delivery.remove(delivery) else { return };
        entries.bytes -= entry.bytes();
        if too_much {
            self.metrics.late_answers.with_label_values(&["no_room"]).inc();
        } else {
            let late = match late {
                Late::Answered(answer) => Late::Answered(answer.detached()),
                other => other,
            };
            entries.put(delivery, Entry { late, ..entry });
        }
    }

    /// What has become of a visit that returns; none if that is not remembered. What was given up is
    /// forgotten with that.
    pub fn look(&self, delivery: &str) -> Option<Late> {
        let mut entries = self.lock();
        let entry = entries.by_delivery.get_mut(delivery)?;
        let late = entry.late.clone();
        match &late {
            Late::Running => {}
            Late::Answered(_) => {
                if !std::mem::replace(&mut entry.fetched, true) {
                    self.metrics.late_answers.with_label_values(&["given"]).inc();
                }
            }
            Late::GivenUp { .. } => drop(entries.take(delivery)),
        }
        Some(late)
    }

    /// Forgets what nobody returns for any more, and gives back the answers that nobody fetched.
    pub(super) fn sweep(&self, now: Moment) -> Vec<(Subject, Answer)> {
        let mut entries = self.lock();
        let over: Vec<String> = entries
            .by_delivery
            .iter()
            .filter(|(_, entry)| entry.until <= now && !matches!(entry.late, Late::Running))
            .map(|(delivery, _)| delivery.clone())
            .collect();
        let mut not_fetched = Vec::new();
        for delivery in over {
            if let Some(Entry { late: Late::Answered(answer), subject, fetched: false, .. }) =
                entries.take(&delivery)
            {
                self.metrics.late_answers.with_label_values(&["unfetched"]).inc();
                not_fetched.push((subject, answer));
            }
        }
        not_fetched
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entries ===

impl Entries {
    fn put(&mut self, delivery: &str, entry: Entry) {
        drop(self.take(delivery));
        self.bytes += entry.bytes();
        self.by_delivery.insert(delivery.to_owned(), entry);
    }

    fn take(&mut self, delivery: &str) -> Option<Entry> {
        let entry = self.by_delivery.remove(delivery)?;
        self.bytes -= entry.bytes();
        Some(entry)
    }
}

/// Every name a late answer's fate can have in metrics.
pub const FATES: [&str; 3] = ["given", "unfetched", "no_room"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use holdline_twilio::Document;

    use super::*;
    use crate::answer::AnsweredBy;

    fn memory() -> LateAnswers {
        LateAnswers::new(Arc::new(Metrics::new().unwrap()))
    }

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn answered() -> Late {
        let (document, _) = Document::check(Bytes::from_static(b"<Response/>")).unwrap();
        let by = AnsweredBy::Origin;
        Late::Answered(Answer::Document { document, by, cookies: Vec::new() })
    }

    #[test]
    fn an_answer_is_given_as_often_as_somebody_returns_for_it() {
        let memory = memory();
        assert!(memory.begin("d", Subject::example(), at(10)));
        assert!(matches!(memory.look("d"), Some(Late::Running)));
        memory.end("d", answered());
        for _ in 0..2 {
            assert!(matches!(memory.look("d"), Some(Late::Answered(_))));
        }
        assert_eq!(memory.metrics.late_answers.with_label_values(&["given"]).get(), 1);
        memory.sweep(at(11));
        assert!(memory.look("d").is_none());
        assert_eq!(memory.lock().bytes, 0);
        assert_eq!(memory.metrics.late_answers.with_label_values(&["unfetched"]).get(), 0);
    }

    #[test]
    fn what_nobody_came_for_is_told() {
        let memory = memory();
        memory.begin("d", Subject::example(), at(10));
        memory.sweep(at(11));
        assert!(memory.look("d").is_some(), "it is still being asked");
        memory.end("d", answered());
        assert_eq!(memory.sweep(at(12)).len(), 1);
        assert_eq!(memory.metrics.late_answers.with_label_values(&["unfetched"]).get(), 1);
    }

    #[test]
    fn what_was_given_up_is_told_once() {
        let memory = memory();
        memory.begin("d", Subject::example(), at(10));
        memory.end("d", Late::GivenUp { may_have_run: true });
        assert!(matches!(memory.look("d"), Some(Late::GivenUp { may_have_run: true })));
        assert!(memory.look("d").is_none());
        memory.end("unknown", answered());
        assert!(memory.look("unknown").is_none());
    }

    #[test]
    fn the_memory_is_bounded() {
        let memory = memory();
        let begun =
            (0..=MOST).filter(|n| memory.begin(&n.to_string(), Subject::example(), at(1))).count();
        assert_eq!(begun, MOST);
        memory.lock().bytes = MOST_BYTES;
        memory.end("1", answered());
        assert!(memory.look("1").is_none());
        assert_eq!(memory.metrics.late_answers.with_label_values(&["no_room"]).get(), 1);
    }
}
