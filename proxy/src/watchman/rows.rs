//! The rows as the watchman knows them: a number each, for as long as the process lives, and what whoever
//! is on the way of a visit reads and counts without a lock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use holdline_policy::{Access, Phase, RowId, Upstream};

/// What all sides share of one row.
#[derive(Debug)]
pub struct RowWatch {
    /// Its number.
    pub id: RowId,
    /// Its name; empty for what belongs to no row.
    pub name: String,
    /// Good attempts that were only counted.
    good: [AtomicU32; Upstream::COUNT],
    /// Visits that the origin was not asked for, though it could have been.
    unasked: AtomicU32,
    /// The access visits to it have, apart from what is believed of the upstream.
    access: [AtomicU8; Upstream::COUNT],
    /// Whether it is watched, so that what ends well there matters.
    watched: [AtomicBool; Upstream::COUNT],
    /// Whether a visit is trying it.
    on_trial: [AtomicBool; Upstream::COUNT],
}

/// All rows that there were in this process. A row keeps its number when it is left out of the catalogue
/// and comes back.
#[derive(Debug)]
pub(super) struct Rows {
    all: ArcSwap<Vec<Arc<RowWatch>>>,
    adding: Mutex<()>,
}

// === impl RowWatch ===

impl RowWatch {
    fn new(id: RowId, name: &str) -> Arc<RowWatch> {
        Arc::new(RowWatch {
            id,
            name: name.to_owned(),
            good: Default::default(),
            unasked: AtomicU32::default(),
            access: Default::default(),
            watched: Default::default(),
            on_trial: Default::default(),
        })
    }

    /// The access that visits to the row have to each upstream, apart from what is believed of the
    /// upstream.
    pub fn access(&self) -> [Access; Upstream::COUNT] {
        Upstream::ALL.map(|upstream| match self.access[upstream.index()].load(Ordering::Acquire) {
            1 => Access::Stuck,
            2 => Access::OnTrial,
            3 => Access::FailsAlone,
            _ => Access::Serving,
        })
    }

    /// Whether a visit is trying the row at this upstream.
    pub fn on_trial(&self, upstream: Upstream) -> &AtomicBool {
        &self.on_trial[upstream.index()]
    }

    /// Whether what ends well there is only counted.
    pub(super) fn only_counts(&self, upstream: Upstream) -> bool {
        !self.watched[upstream.index()].load(Ordering::Relaxed)
    }

    pub(super) fn count_good(&self, upstream: Upstream) {
        self.good[upstream.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a visit that was answered, or kept, without the origin having been asked.
    pub fn count_unasked(&self) {
        self.unasked.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows what is believed of it, `None` if nothing is; and whether what ends well is more than counted.
    pub(super) fn show(&self, upstream: Upstream, phase: Option<Phase>, minds: bool) {
        let access = match phase.map(Access::to_row) {
            Some(Access::Stuck) => 1,
            Some(Access::OnTrial) => 2,
            Some(Access::FailsAlone) => 3,
            _ => 0,
        };
        self.access[upstream.index()].store(access, Ordering::Release);
        self.watched[upstream.index()].store(minds, Ordering::Relaxed);
    }
}

// === impl Rows ===

impl Rows {
    pub(super) fn new() -> Rows {
        let none = RowWatch::new(RowId::NONE, "");
        Rows { all: ArcSwap::from_pointee(vec![none]), adding: Mutex::new(()) }
    }

    /// The row of this name; numbered if it is new.
    pub(super) fn named(&self, name: &str) -> Arc<RowWatch> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.all.load();
        if let Some(known) = all.iter().find(|row| row.name == name) {
            return known.clone();
        }
        // Nobody has so many rows; whoever does has some that are not told from no row.
        let Ok(id) = u16::try_from(all.len()) else { return all[0].clone() };
        let row = RowWatch::new(RowId(id), name);
        let mut more = Vec::clone(&all);
        more.push(row.clone());
        self.all.store(Arc::new(more));
        row
    }

    pub(super) fn with_id(&self, id: RowId) -> Option<Arc<RowWatch>> {
        self.all.load().get(usize::from(id.0)).cloned()
    }

    /// The name of a row; none where there is no such row.
    pub(super) fn name_of(&self, id: RowId) -> String {
        self.with_id(id).map_or_else(String::new, |row| row.name.clone())
    }

    /// Puts back what was taken out and could not be told.
    pub(super) fn put_back(&self, upstream: Upstream, good: &[(RowId, u32)]) {
        let all = self.all.load();
        for (id, count) in good {
            if let Some(row) = all.get(usize::from(id.0)) {
                row.good[upstream.index()].fetch_add(*count, Ordering::Relaxed);
            }
        }
    }

    /// Takes out what was only counted.
    pub(super) fn take_good(&self, upstream: Upstream) -> Vec<(RowId, u32)> {
        self.take(|row| &row.good[upstream.index()])
    }

    /// Takes out how many visits the origin was not asked for.
    pub(super) fn take_unasked(&self) -> Vec<(RowId, u32)> {
        self.take(|row| &row.unasked)
    }

    fn take(&self, count: impl Fn(&RowWatch) -> &AtomicU32) -> Vec<(RowId, u32)> {
        let mut taken = Vec::new();
        for row in self.all.load().iter() {
            let count = count(row);
            if count.load(Ordering::Relaxed) > 0 {
                taken.push((row.id, count.swap(0, Ordering::Relaxed)));
            }
        }
        taken
    }
}
