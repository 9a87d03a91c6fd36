//! What goes on after a visit was answered: attempts whose caller was held and may return, and attempts
//! that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use holdline_policy::{Replay, Stopped, Upstream};
use pingora_timeout::fast_timeout::fast_timeout;

use super::attempt::{Done, Race};
use super::judge::Judged;
use super::late::Late;
use super::{Question, Relay, hold};
use crate::answer::Answer;
use crate::record::Record;

/// How often attempts that nobody waits for are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A held visit whose attempts go on. When they are over without an answer it is given up.
struct Held {
    relay: Arc<Relay>,
    delivery: String,
    may_have_run: bool,
    answered: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            // After a panic nobody knows.
            let may_have_run = self.may_have_run || std::thread::panicking();
            self.relay.late.end(&self.delivery, Late::GivenUp { may_have_run });
        }
    }
}

// === impl Relay ===

impl Relay {
    /// Takes up a visit that returns from a hold: what came meanwhile, another hold while nothing has,
    /// or the final document where it may have run and must not again. Where nobody answers, by order, nobody is
    /// held either.
    pub(super) fn take_up(
        &self,
        question: &mut Question<'_>,
        nobody_answers: bool,
        record: &mut Record,
    ) -> Option<Answer> {
        let token = question.held.as_ref()?;
        match self.late.look(&token.delivery) {
            Some(Late::Answered(answer)) => return Some(answer),
            Some(Late::Running) if !nobody_answers => {
                record.stopped = Some(Stopped::Overdue);
                let held = self.hold(question, true);
                return Some(held.unwrap_or_else(|| self.final_answer(question.row)));
            }
            Some(Late::GivenUp { may_have_run }) => question.may_have_run = may_have_run,
            Some(Late::Running) | None => {}
        }
        if question.may_have_run && question.row.replay != Replay::Idempotent {
            record.stopped = Some(Stopped::MayHaveRun);
            return Some(self.final_answer(question.row));
        }
        None
    }

    /// Lets the attempts of a held visit go on, and remembers what comes of them, for as long as the
    /// caller may return.
    pub(super) fn remember(self: &Arc<Self>, question: &Question<'_>, mut race: Race<Judged>) {
        let delivery = question.outgoing.delivery.clone();
        let until = self.clock.now() + question.row.hold.unwrap_or_default() + hold::GRACE;
        if !self.late.begin(&delivery, self.subject(question), until) {
            return self.leave(race);
        }
        let (replay, row) = (question.row.replay, question.visit.row);
        let mut held = Held {
            relay: self.clone(),
            delivery,
            may_have_run: question.may_have_run,
            answered: false,
        };
        tokio::spawn(async move {
            while !race.is_empty() && !held.answered && held.relay.clock.now() < until {
                // Attempts look at the clock when they are looked at.
                match fast_timeout(LOOK_EVERY, race.next()).await {
                    Ok(Some(Done { note, result: Ok(judged), .. })) => {
                        held.answered = true;
                        if note.upstream == Upstream::Origin {
                            let row = &held.relay.catalogue.rows()[row];
                            held.relay.untell(row, &held.delivery);
                        }
                        let answer = held.relay.steered(note.upstream, judged);
                        held.relay.late.end(&held.delivery, Late::Answered(answer));
                    }
                    Ok(Some(Done { result: Err(ended), .. })) => {
                        held.may_have_run |= ended.may_have_run(replay);
                    }
                    _ => {}
                }
            }
            held.may_have_run |= !race.is_empty();
            held.relay.leave(race);
        });
    }

    /// Lets attempts that nobody waits for go on: they still show whether an upstream is slow or dead.
    /// Where room is needed, they give way.
    pub(super) fn leave<T: Send + 'static>(&self, race: Race<T>) {
        for (upstream, attempt) in race.into_attempts() {
            let going_on = tokio::spawn(async move {
                let mut attempt = attempt;
                // Attempts look at the clock when they are looked at.
                while fast_timeout(LOOK_EVERY, &mut attempt).await.is_err() {}
            });
            let target = &self.targets[upstream.index()];
            target.abandon(going_on.abort_handle(), self.clock.now());
        }
    }
}
