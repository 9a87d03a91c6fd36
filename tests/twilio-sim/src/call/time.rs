//! How time passes on a call, and what may come in between.

use std::time::Duration;

use tokio::time::Instant;

use super::{Call, Command, Flow, Next, Redirect, Source};
use crate::party::Act;
use crate::transcript::Ending;

// === impl Call ===

impl Call {
    /// Lets time pass, as the person feels it.
    pub(super) async fn pass(&mut self, seconds: f64) -> Flow<()> {
        let until = self.after(seconds);
        while let Some(command) = self.command_before(until).await? {
            self.obey(command)?;
        }
        Ok(())
    }

    /// A command that comes before a point in time; none if that comes first.
    pub(super) async fn command_before(&mut self, until: Instant) -> Flow<Option<Command>> {
        let leaves = self.leaves_at.filter(|at| *at <= until);
        let ends = self.ends_at.filter(|at| *at <= until);
        let first = [Some(until), leaves, ends].into_iter().flatten().min().unwrap_or(until);
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Ok(Some(command)),
            () = tokio::time::sleep_until(first) => match (leaves, ends) {
                (Some(at), _) if at == first => Err(Next::End(Ending::PartyLeft)),
                (_, Some(at)) if at == first => Err(Next::End(Ending::HungUp)),
                _ => Ok(None),
            },
        }
    }

    /// Takes over what a redirect says; what is to be carried out instead is given back.
    pub(super) fn take_over(&mut self, redirect: Redirect) -> Option<Source> {
        self.fallback = redirect.fallback.or_else(|| self.fallback.take());
        self.status = redirect.status.or_else(|| self.status.take());
        redirect.source
    }

    /// Heeds what came while a request was under way.
    pub(super) fn heed(&mut self) -> Flow<()> {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command)?;
        }
        let now = Instant::now();
        if self.leaves_at.is_some_and(|at| at <= now) {
            return Err(Next::End(Ending::PartyLeft));
        }
        if self.ends_at.is_some_and(|at| at <= now) {
            return Err(Next::End(Ending::HungUp));
        }
        Ok(())
    }

    /// Lets time pass until keys come from outside, or the time is over.
    pub(super) async fn keys_within(&mut self, seconds: f64) -> Flow<String> {
        let until = self.after(seconds);
        while self.keyed.is_empty() {
            match self.command_before(until).await? {
                Some(command) => self.obey(command)?,
                None => break,
            }
        }
        Ok(std::mem::take(&mut self.keyed))
    }

    pub(super) fn obey(&mut self, command: Command) -> Flow<()> {
        match command {
            Command::Redirect(redirect) => {
                self.take_over(*redirect).map_or(Ok(()), |source| Err(Next::Redirected(source)))
            }
            Command::End(Ending::ParentEnded) if !self.tied => Ok(()),
            Command::End(ending) => Err(Next::End(ending)),
            Command::HangUp => Err(Next::End(Ending::PartyLeft)),
            Command::Press(keys) => {
                self.keyed.push_str(&keys);
                Ok(())
            }
        }
    }

    /// The person has done what was next.
    pub(super) fn act_done(&mut self) {
        self.party.done();
        self.documents = 0;
        self.begin_act();
    }

    /// If what is next is to hang up, sets when.
    pub(super) fn begin_act(&mut self) {
        if let Some(Act::HangUp(span)) = self.party.next_act() {
            let seconds = span.draw(&mut self.dice);
            self.leaves_at = Some(self.after(seconds));
        }
    }

    pub(super) fn after(&self, seconds: f64) -> Instant {
        let far = Duration::from_secs(86_400);
        let real = Duration::try_from_secs_f64(seconds / self.company.speed()).unwrap_or(far);
        Instant::now() + real.min(far)
    }
}
