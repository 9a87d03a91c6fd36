//! Answers that come after the caller was put on hold.
//!
//! What is held is remembered by its delivery id: still being asked, answered, or given up. The memory
//! is this process's alone and bounded in number and size; what is not in it is asked again where that
//! is allowed, so that losing it costs a caller at most another wait. A process that another one takes
//! over from tells it all of this, and whatever comes later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdline_policy::Moment;
use holdline_twilio::Document;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::notice::Subject;
use crate::answer::{Answer, AnsweredBy};
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

/// What one process tells another of a held visit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct News {
    delivery: String,
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum What {
    Began { subject: Subject, until: Moment },
    Answered { by: AnsweredBy, document: String, cookies: Vec<String> },
    GivenUp { may_have_run: bool },
    Fetched,
}

#[derive(Debug, Default)]
struct Entries {
    by_delivery: HashMap<String, Entry>,
    bytes: usize,
    /// Who is told everything from now on.
    heir: Option<mpsc::Sender<News>>,
}

#[derive(Debug)]
struct Entry {
    late: Late,
    subject: Subject,
    until: Moment,
    fetched: bool,
    /// Whether another process is asking.
    elsewhere: bool,
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
        entries.tell(delivery, || What::Began { subject: subject.clone(), until });
        let late = Late::Running;
        entries.put(delivery, Entry { late, subject, until, fetched: false, elsewhere: false });
        true
    }

    /// Notes what became of it.
    pub fn end(&self, delivery: &str, late: Late) {
        let mut entries = self.lock();
        entries.tell(delivery, || What::of(&late));
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
                    entries.tell(delivery, || What::Fetched);
                }
            }
            Late::GivenUp { .. } => drop(entries.take(delivery)),
        }
        Some(late)
    }

    /// Forgets what nobody returns for any more, and gives back the answers that nobody fetched.
    pub(super) fn sweep(&self, now: Moment) -> Vec<(Subject, Answer)> {
        let mut entries = self.lock();
        // Whoever takes over tells of it; until it has, nothing is forgotten.
        if entries.heir.is_some() {
            return Vec::new();
        }
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

    /// Tells another process everything: what there is, as given back, and what comes later.
    pub fn bequeath(&self, heir: mpsc::Sender<News>) -> Vec<News> {
        let mut entries = self.lock();
        entries.heir = Some(heir);
        let mut all = Vec::new();
        for (delivery, entry) in &entries.by_delivery {
            let began = What::Began { subject: entry.subject.clone(), until: entry.until };
            let ended = (!matches!(entry.late, Late::Running)).then(|| What::of(&entry.late));
            let whats = [Some(began), ended, entry.fetched.then_some(What::Fetched)];
            let news = |what| News { delivery: delivery.clone(), what };
            all.extend(whats.into_iter().flatten().map(news));
        }
        all
    }

    /// Tells nobody any more.
    pub fn disinherit(&self) {
        self.lock().heir = None;
    }

    /// Remembers what another process tells.
    pub fn take_in(&self, news: News) {
        let News { delivery, what } = news;
        match what {
            What::Began { subject, until } => {
                if self.begin(&delivery, subject, until)
                    && let Some(entry) = self.lock().by_delivery.get_mut(&delivery)
                {
                    entry.elsewhere = true;
                }
            }
            What::Answered { by, document, cookies } => {
                let cookies = cookies.iter().filter_map(|cookie| cookie.parse().ok()).collect();
                let late = match Document::check(Bytes::from(document)) {
                    Ok((document, _)) => Late::Answered(Answer::Document { document, by, cookies }),
                    Err(_) => Late::GivenUp { may_have_run: true },
                };
                self.end(&delivery, late);
            }
            What::GivenUp { may_have_run } => self.end(&delivery, Late::GivenUp { may_have_run }),
            What::Fetched => {
                let mut entries = self.lock();
                entries.tell(&delivery, || What::Fetched);
                if let Some(entry) = entries.by_delivery.get_mut(&delivery) {
                    entry.fetched = true;
                }
            }
        }
    }

    /// The other process is gone: what it was still asking it asks no more, and nobody knows how far it
    /// came.
    pub fn orphan(&self) {
        let mut entries = self.lock();
        let orphans = entries.by_delivery.iter();
        let orphans = orphans.filter(|(_, e)| e.elsewhere && matches!(e.late, Late::Running));
        let orphans: Vec<String> = orphans.map(|(delivery, _)| delivery.clone()).collect();
        for delivery in orphans {
            let late = Late::GivenUp { may_have_run: true };
            entries.tell(&delivery, || What::of(&late));
            if let Some(entry) = entries.by_delivery.get_mut(&delivery) {
                entry.late = late;
            }
        }
    }

    /// Whether anything is still being asked, here or in a process that this one took over from.
    pub fn is_asking(&self) -> bool {
        let entries = self.lock();
        entries.by_delivery.values().any(|entry| matches!(entry.late, Late::Running))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl What ===

impl What {
    fn of(late: &Late) -> What {
        match late {
            Late::Answered(Answer::Document { document, by, cookies }) => What::Answered {
                by: *by,
                document: String::from_utf8_lossy(document.bytes()).into_owned(),
                cookies: cookies.iter().filter_map(text).collect(),
            },
            Late::GivenUp { may_have_run } => What::GivenUp { may_have_run: *may_have_run },
            // Nothing else answers a visit that is held.
            Late::Answered(_) | Late::Running => What::GivenUp { may_have_run: true },
        }
    }
}

fn text(cookie: &HeaderValue) -> Option<String> {
    cookie.to_str().ok().map(str::to_owned)
}

// === impl Entries ===

impl Entries {
    /// Tells whoever takes over. What it does not hear of it treats like what no memory has.
    fn tell(&self, delivery: &str, what: impl FnOnce() -> What) {
        if let Some(heir) = &self.heir {
            let _ = heir.try_send(News { delivery: delivery.to_owned(), what: what() });
        }
    }

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

    use super::*;

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
    fn another_process_goes_on_with_it() {
        let (old, new) = (memory(), memory());
        old.begin("answered", Subject::example(), at(10));
        old.end("answered", answered());
        old.begin("running", Subject::example(), at(10));
        let (heir, mut news) = mpsc::channel(8);
        let through_the_wire = |news: News| {
            let text = serde_json::to_string(&news).unwrap();
            new.take_in(serde_json::from_str(&text).unwrap());
        };
        old.bequeath(heir).into_iter().for_each(through_the_wire);
        assert!(matches!(new.look("answered"), Some(Late::Answered(_))));
        assert!(matches!(new.look("running"), Some(Late::Running)));
        old.begin("later", Subject::example(), at(10));
        old.end("running", answered());
        while let Ok(news) = news.try_recv() {
            through_the_wire(news);
        }
        assert!(matches!(new.look("running"), Some(Late::Answered(_))));
        assert!(matches!(new.look("later"), Some(Late::Running)));
        assert!(old.is_asking() && new.is_asking());
        assert!(old.sweep(at(11)).is_empty(), "it is the other's to tell");
        new.orphan();
        assert!(!new.is_asking());
        assert!(matches!(new.look("later"), Some(Late::GivenUp { may_have_run: true })));
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
