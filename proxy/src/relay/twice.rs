//! The same request twice: while the first is being answered the second waits for it, and after that
//! it gets the same answer.
//!
//! A request is the same if Twilio's idempotency token, the URL and the body are; without a token
//! every arrival is new. A second table finds the first request of a call by the URL that Twilio says
//! it failed at, for the request to a fallback URL that follows an error.
//!
//! Both tables have a fixed number of places, found by hash. Taking one is an exchange of pointers, and
//! whoever comes later to a place takes it: what is forgotten so is asked again under the same
//! delivery id. Requests are told apart by 128 bits of a keyed hash, so that nothing of them is kept.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use holdline_policy::Moment;
use holdline_twilio::CallSid;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::Notify;

use crate::answer::Answer;

/// Places of each table.
const PLACES: usize = 16_384;
/// How long an answer is kept: longer than Twilio repeats a request or asks a fallback URL.
const KEPT: Duration = Duration::from_secs(60);
/// The largest document that is kept.
const LARGEST: usize = 8 * 1024;

/// What is remembered of recent visits.
#[derive(Debug)]
pub struct Recent {
    by_delivery: Box<[ArcSwapOption<Entry>]>,
    /// For each URL of a call, the place of its last visit in the other table.
    by_url: Box<[AtomicUsize]>,
    hashers: [RandomState; 2],
}

/// A request in short.
type Key = [u64; 2];

/// One visit.
#[derive(Debug)]
struct Entry {
    delivery: Key,
    url: Key,
    begun: Moment,
    /// What was answered; none if answering was broken off.
    answer: OnceLock<Option<Answer>>,
    over: Notify,
}

/// What a visit is to the ones before it.
#[derive(Debug)]
pub enum Place {
    /// The first. Its answer is to be told here.
    First(First),
    /// The first is still being answered.
    Second(Second),
    /// It was answered before.
    Again(Answer),
}

/// The first of its kind. Dropped without an answer, it lets those who wait go on.
#[derive(Debug)]
pub struct First(Option<Arc<Entry>>);

/// One that waits for the first.
#[derive(Debug)]
pub struct Second(Arc<Entry>);

/// What is known of the request that Twilio says has failed.
#[derive(Debug, Clone)]
pub enum Earlier {
    /// It never arrived, or is forgotten.
    Unknown,
    /// It arrived, and has no answer yet, or none that is kept.
    Delivered,
    /// It was answered.
    Answered(Answer),
}

// === impl Recent ===

impl Default for Recent {
    fn default() -> Recent {
        Recent {
            by_delivery: (0..PLACES).map(|_| ArcSwapOption::empty()).collect(),
            by_url: (0..PLACES).map(|_| AtomicUsize::new(0)).collect(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }
}

impl Recent {
    /// Finds a visit its place.
    pub fn place(&self, delivery: &str, call: Option<CallSid>, target: &str, now: Moment) -> Place {
        let (delivery, url) = (self.key(delivery), self.key((call, target)));
        let index = delivery[0] as usize % PLACES;
        let place = &self.by_delivery[index];
        let entry = Arc::new(Entry {
            delivery,
            url,
            begun: now,
            answer: OnceLock::new(),
            over: Notify::new(),
        });
        loop {
            let before = place.load();
            if let Some(first) = before.as_ref()
                && first.delivery == delivery
                && now.since(first.begun) < KEPT
            {
                match first.answer.get() {
                    None => return Place::Second(Second(first.clone())),
                    Some(Some(answer)) => return Place::Again(answer.clone()),
                    Some(None) => {}
                }
            }
            // Another thread may have taken the place meanwhile, with the same request even.
            let found = place.compare_and_swap(&*before, Some(entry.clone()));
            if found.as_ref().map(Arc::as_ptr) == before.as_ref().map(Arc::as_ptr) {
                break;
            }
        }
        self.by_url[url[0] as usize % PLACES].store(index, Ordering::Relaxed);
        Place::First(First(Some(entry)))
    }

    /// What is known of a call's last request to a URL.
    pub fn earlier(&self, call: Option<CallSid>, target: &str, now: Moment) -> Earlier {
        let url = self.key((call, target));
        let index = self.by_url[url[0] as usize % PLACES].load(Ordering::Relaxed);
        let place = self.by_delivery[index].load();
        match place.as_ref() {
            Some(entry) if entry.url == url && now.since(entry.begun) < KEPT => {
                match entry.answer.get() {
                    Some(Some(answer)) => Earlier::Answered(answer.clone()),
                    _ => Earlier::Delivered,
                }
            }
            _ => Earlier::Unknown,
        }
    }

    /// Forgets what is too old.
    pub fn sweep(&self, now: Moment) {
        for place in &self.by_delivery {
            let entry = place.load();
            if entry.as_ref().is_some_and(|entry| now.since(entry.begun) >= KEPT) {
                place.compare_and_swap(&*entry, None);
            }
        }
    }

    fn key(&self, of: impl Hash) -> Key {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(&of))
    }
}

// === impl First ===

impl First {
    /// Tells the answer to whoever asks the same.
    pub fn answered(mut self, answer: &Answer) {
        if let Some(entry) = self.0.take() {
            let small = answer.content().is_none_or(|(_, body)| body.len() <= LARGEST);
            entry.end(small.then(|| answer.detached()));
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            entry.end(None);
        }
    }
}

impl Entry {
    fn end(&self, answer: Option<Answer>) {
        // It ends once.
        let _ = self.answer.set(answer);
        self.over.notify_waiters();
    }
}

// === impl Second ===

impl Second {
    /// The first's answer, if it comes in time. `None` within the `Ok` if the first was broken off or
    /// its answer is not kept.
    pub async fn answer(&self, patience: Duration) -> Result<Option<Answer>, ()> {
        let wait = async {
            loop {
                let over = self.0.over.notified();
                if let Some(answer) = self.0.answer.get() {
                    return answer.clone();
                }
                over.await;
            }
        };
        fast_timeout(patience, wait).await.map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdline_twilio::Document;

    use super::*;
    use crate::answer::AnsweredBy;

    fn answer(text: &str) -> Answer {
        let body = Bytes::from(format!("<Response>{text}</Response>"));
        let (document, _) = Document::check(body).unwrap();
        Answer::Document { document, by: AnsweredBy::Origin, cookies: Vec::new() }
    }

    fn text(answer: &Answer) -> String {
        String::from_utf8(answer.content().unwrap().1.to_vec()).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn first(recent: &Recent, delivery: &str, now: Moment) -> First {
        match recent.place(delivery, None, "/x", now) {
            Place::First(first) => first,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_gets_its_answer() {
        let recent = Recent::default();
        let one = first(&recent, "d", at(1));
        let Place::Second(two) = recent.place("d", None, "/x", at(1)) else { panic!() };
        assert!(two.answer(Duration::from_millis(20)).await.is_err(), "it is not there yet");
        let (got, ()) = tokio::join!(two.answer(Duration::from_secs(5)), async {
            one.answered(&answer("one"));
        });
        assert_eq!(text(&got.unwrap().unwrap()), "<Response>one</Response>");
        let Place::Again(again) = recent.place("d", None, "/x", at(2)) else { panic!() };
        assert_eq!(text(&again), "<Response>one</Response>");
        drop(first(&recent, "other", at(2)));
    }

    #[tokio::test]
    async fn what_was_broken_off_is_nobodys_answer() {
        let recent = Recent::default();
        let one = first(&recent, "d", at(1));
        let Place::Second(two) = recent.place("d", None, "/x", at(1)) else { panic!() };
        drop(one);
        assert!(two.answer(Duration::from_secs(5)).await.unwrap().is_none());
        first(&recent, "d", at(1)).answered(&answer(&"x".repeat(LARGEST)));
        assert!(matches!(recent.place("d", None, "/x", at(1)), Place::First(_)), "too large");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let recent = Recent::default();
        first(&recent, "d", at(1)).answered(&answer("one"));
        assert!(matches!(recent.place("d", None, "/x", at(60)), Place::Again(_)));
        assert!(matches!(recent.earlier(None, "/x", at(60)), Earlier::Answered(_)));
        recent.sweep(at(61));
        assert!(matches!(recent.earlier(None, "/x", at(60)), Earlier::Unknown));
        assert!(matches!(recent.place("d", None, "/x", at(61)), Place::First(_)));
    }

    #[test]
    fn the_request_that_failed_is_found_by_call_and_url() {
        let recent = Recent::default();
        let call: CallSid = "CA0123456789abcdef0123456789abcdef".parse().unwrap();
        let Place::First(one) = recent.place("d", Some(call), "/x?a=1", at(1)) else { panic!() };
        assert!(matches!(recent.earlier(Some(call), "/x?a=1", at(1)), Earlier::Delivered));
        one.answered(&answer("one"));
        assert!(matches!(recent.earlier(Some(call), "/x?a=1", at(1)), Earlier::Answered(_)));
        for (call, target) in [(None, "/x?a=1"), (Some(call), "/x")] {
            assert!(matches!(recent.earlier(call, target, at(1)), Earlier::Unknown));
        }
    }
}
