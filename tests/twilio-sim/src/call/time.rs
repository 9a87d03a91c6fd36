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

    /// Takes over what a redirect says beside what is to be carried out.
    pub(super) fn take_over(&mut self, redirect: Redirect) -> Source {
        self.fallback = redirect.fallback.or_else(|| self.fallback.take());
        self.status = redirect.status.or_else(|| self.status.take());
        redirect.source
    }

    pub(super) fn obey(&mut self, command: Command) -> Flow<()> {
        match command {
            Command::Redirect(redirect) => {
                let source = self.take_over(*redirect);
                Err(Next::Redirected(source))
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
        let real = Duration::try_from_secs_f64(seconds / self.company.speed());
        Instant::now() + real.unwrap_or(Duration::from_secs(86_400))
    }
}
