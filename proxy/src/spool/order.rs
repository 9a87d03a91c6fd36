//! Whether anything older of the same call waits or is under way.
//!
//! What is under way is counted in a table with a fixed number of cells, found by hash: raising a count
//! is all that a report costs that goes straight through. Two calls may share a cell; then one of them
//! is kept and delivered a moment later, and that is all. What waits on disk is known call by call, but
//! only looked up while anything waits at all.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cells for what is under way. With 500 reports under way one in a hundred and thirty is taken.
const CELLS: usize = 65_536;
/// Parts of the table of what waits.
const PARTS: usize = 64;

/// What is under way, and what waits.
#[derive(Debug)]
pub(super) struct Order {
    under_way: Box<[AtomicU32]>,
    waiting: Box<[Mutex<HashMap<u64, u32>>]>,
    /// All that waits.
    total: AtomicUsize,
    hasher: RandomState,
}

/// A report under way. While it is held, nothing of the same call that waits is delivered.
#[derive(Debug)]
pub struct Turn {
    order: Arc<Order>,
    cell: usize,
    /// Whether nothing older of the same call waits or is under way.
    pub is_first: bool,
}

// === impl Order ===

impl Default for Order {
    fn default() -> Order {
        Order {
            under_way: (0..CELLS).map(|_| AtomicU32::new(0)).collect(),
            waiting: (0..PARTS).map(|_| Mutex::default()).collect(),
            total: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl Order {
    /// Lines up a report of a call.
    pub(super) fn line_up(self: &Arc<Self>, call: &str) -> Turn {
        let key = self.hasher.hash_one(call);
        let cell = key as usize % CELLS;
        let alone = self.under_way[cell].fetch_add(1, Ordering::AcqRel) == 0;
        let is_first = alone
            && (self.total.load(Ordering::Acquire) == 0 || !self.part(key).contains_key(&key));
        Turn { order: self.clone(), cell, is_first }
    }

    /// Whether a report of this call is under way. What was kept of it before this said no is on disk.
    pub(super) fn is_under_way(&self, call: &str) -> bool {
        let cell = self.hasher.hash_one(call) as usize % CELLS;
        self.under_way[cell].load(Ordering::Acquire) > 0
    }

    /// Whether anything of this call waits.
    pub(super) fn waits(&self, call: &str) -> bool {
        let key = self.hasher.hash_one(call);
        self.part(key).contains_key(&key)
    }

    /// Another delivery of this call waits.
    pub(super) fn add(&self, call: &str) {
        let key = self.hasher.hash_one(call);
        *self.part(key).entry(key).or_default() += 1;
        self.total.fetch_add(1, Ordering::AcqRel);
    }

    /// One less does.
    pub(super) fn remove(&self, call: &str) {
        let key = self.hasher.hash_one(call);
        let mut part = self.part(key);
        let Some(count) = part.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            part.remove(&key);
            // A table that was large once need not stay so.
            if part.is_empty() {
                part.shrink_to(0);
            }
        }
        self.total.fetch_sub(1, Ordering::AcqRel);
    }

    /// Forgets what waits; whoever says so adds it anew.
    pub(super) fn clear(&self) {
        self.waiting.iter().for_each(|part| {
            part.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        self.total.store(0, Ordering::Release);
    }

    fn part(&self, key: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        // Other bits than those that choose a cell.
        let part = (key >> 32) as usize % PARTS;
        self.waiting[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.under_way[self.cell].fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_is_not_first() {
        let order = Arc::new(Order::default());
        let first = order.line_up("CA1");
        assert!(first.is_first && order.is_under_way("CA1"));
        assert!(!order.line_up("CA1").is_first);
        assert!(order.line_up("CA2").is_first, "another call");
        drop(first);
        assert!(!order.is_under_way("CA1"));
        assert!(order.line_up("CA1").is_first);
    }

    #[test]
    fn while_anything_of_a_call_waits_nothing_of_it_is_first() {
        let order = Arc::new(Order::default());
        order.add("CA1");
        order.add("CA1");
        assert!(!order.line_up("CA1").is_first);
        assert!(order.line_up("CA2").is_first);
        order.remove("CA1");
        assert!(!order.line_up("CA1").is_first);
        order.remove("CA1");
        assert!(order.line_up("CA1").is_first);
        // More than was there cannot be taken away.
        order.remove("CA1");
        assert_eq!(order.total.load(Ordering::Relaxed), 0);
        order.add("CA3");
        order.clear();
        assert!(order.line_up("CA3").is_first);
    }
}
