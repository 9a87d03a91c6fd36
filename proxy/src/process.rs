//! The process's own limits: enough descriptors for its connections, and no memory on any disk.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Descriptors beside those of clients: upstreams, the spool, logs, the system.
const OTHERS: u64 = 2048;

/// Keeps the process's memory, which holds secrets and what callers said, out of core dumps and away from
/// other processes of the same user.
pub fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let no_core = setrlimit(Resource::Core, none);
    let not_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if no_core.is_err() || not_dumpable.is_err() {
        tracing::warn!("core dumps could not be forbidden; they would hold secrets");
    }
}

/// Allows the process as many descriptors as so many connections need.
pub fn allow_descriptors(connections: usize) {
    let open = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let current = open.maximum.map_or(wanted, |most| most.min(wanted));
    if open.current.is_some_and(|now| now < current) {
        let raised = Rlimit { current: Some(current), maximum: open.maximum };
        // It is looked at again below.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    if let Some(now) = getrlimit(Resource::Nofile).current.filter(|now| *now < wanted) {
        tracing::warn!(
            descriptors = now,
            wanted,
            "limits.connections cannot be reached: raise the limit on open files (LimitNOFILE)"
        );
    }
}
