//! What the operator orders, apart from what is believed.
//!
//! A stance never changes a verdict, and a verdict never a stance: probes go on, visits go where the
//! order says, and when it ends they go where the verdict says.

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stance {
    /// Whoever the verdicts say.
    Automatic,
    /// Never the origin.
    Monitor,
    /// Neither upstream: canned documents, at once.
    Canned,
}

// === impl Stance ===

impl Stance {
    /// All of them.
    pub const ALL: [Stance; 3] = [Stance::Automatic, Stance::Monitor, Stance::Canned];

    /// Its name in metrics, logs and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Stance::Automatic => "automatic",
            Stance::Monitor => "monitor",
            Stance::Canned => "canned",
        }
    }

    /// The stance with this name.
    pub fn named(name: &str) -> Option<Stance> {
        Stance::ALL.into_iter().find(|stance| stance.name() == name)
    }
}
