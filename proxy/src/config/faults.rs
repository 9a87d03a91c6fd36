//! What is wrong with a configuration: all of it, each fault with its place and the way to mend it.

use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the environment variable.
    pub place: String,
    /// The key, as a path (`upstreams.origin.url`); empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// Every fault found so far. Shared by all readers of one configuration, so that none stops another.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<Fault>>);

// === impl Faults ===

impl Faults {
    /// Notes a fault.
    pub fn add(&self, place: &str, key: &str, what: impl Into<String>) {
        self.0.borrow_mut().push(Fault { place: place.into(), key: key.into(), what: what.into() });
    }

    /// All faults, in the order found; `Ok` if there are none.
    pub fn into_result(self) -> Result<(), FaultList> {
        let faults = self.0.into_inner();
        if faults.is_empty() { Ok(()) } else { Err(FaultList(faults)) }
    }
}

/// At least one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultList(Vec<Fault>);

// === impl FaultList ===

impl FaultList {
    /// The faults.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for FaultList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            match fault.key.as_str() {
                "" => writeln!(f, "{}: {}", fault.place, fault.what)?,
                key => writeln!(f, "{}: {key}: {}", fault.place, fault.what)?,
            }
        }
        let count = self.0.len();
        write!(f, "{count} fault{} in the configuration", if count == 1 { "" } else { "s" })
    }
}

impl std::error::Error for FaultList {}
