//! Doing a thing once, however often it is asked for.
//!
//! A delivery is claimed before it is worked on, and its answer is written in the very transaction
//! that does the work. The claim is a lease with a fence: when it runs out, another process takes the
//! delivery over under the next fence, and the first, should it wake up, finds that its fence no
//! longer fits and does nothing.

use std::time::Duration;

use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, Writing, now_ms};

/// How long a claim holds.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// How often a claim that somebody else holds is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// How long answers are remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A request that may have come before.
pub(crate) enum Delivery<'s> {
    /// It was answered before.
    Answered(String),
    /// It is ours to answer.
    Ours(Claimed<'s>),
}

/// A delivery that is being worked on, in a transaction of its own.
pub(crate) struct Claimed<'s> {
    writing: Writing<'s>,
    id: &'s str,
    fence: i64,
}

enum Claim {
    Ours(i64),
    Answered(String),
    Theirs,
}

// === impl Claimed ===

impl Claimed<'_> {
    /// The connection that the work is done on.
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        self.writing.connection()
    }

    /// Finishes the work with its answer, all or nothing.
    pub(crate) async fn finish(mut self, answer: &str) -> Result<(), StoreError> {
        let finish = "UPDATE deliveries SET answer = ?, finished_ms = ? \
                      WHERE id = ? AND fence = ? AND answer IS NULL";
        let finished = sqlx::query(finish)
            .bind(answer)
            .bind(now_ms())
            .bind(self.id)
            .bind(self.fence)
            .execute(self.writing.connection())
            .await?;
        if finished.rows_affected() == 0 {
            return Err(StoreError::Fenced);
        }
        self.writing.commit().await
    }
}

// === impl Store ===

impl Store {
    /// Takes up the delivery `id`: its answer if there is one, else the work on it. Waits while
    /// another process works on it, and takes over when that one's lease has run out.
    pub(crate) async fn take_up<'s>(&'s self, id: &'s str) -> Result<Delivery<'s>, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.claim(id).await? {
                Claim::Ours(fence) => {
                    return Ok(Delivery::Ours(Claimed { writing: self.begin().await?, id, fence }));
                }
                Claim::Answered(answer) => return Ok(Delivery::Answered(answer)),
                // By then the lease has run out, unless it is taken over again and again.
                Claim::Theirs if waited > LEASE * 2 => return Err(StoreError::Busy),
                Claim::Theirs => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    waited += LOOK_AGAIN;
                }
            }
        }
    }

    /// Forgets answers that nobody can ask for any more.
    pub async fn forget_old_deliveries(&self) -> Result<u64, StoreError> {
        let before = now_ms() - i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        let mut writing = self.begin().await?;
        let delete = sqlx::query("DELETE FROM deliveries WHERE created_ms < ?").bind(before);
        let deleted = delete.execute(writing.connection()).await?.rows_affected();
        writing.commit().await?;
        Ok(deleted)
    }

    async fn claim(&self, id: &str) -> Result<Claim, StoreError> {
        let now = now_ms();
        let until = now + i64::try_from(LEASE.as_millis()).unwrap_or(0);
        let mut writing = self.begin().await?;
        let insert = "INSERT INTO deliveries (id, fence, lease_until_ms, created_ms) VALUES (?, 1, ?, ?) \
                      ON CONFLICT (id) DO UPDATE SET fence = fence + 1, lease_until_ms = excluded.lease_until_ms \
                      WHERE answer IS NULL AND lease_until_ms < ? RETURNING fence";
        let claimed = sqlx::query(insert)
            .bind(id)
            .bind(until)
            .bind(now)
            .bind(now)
            .fetch_optional(writing.connection())
            .await?;
        if let Some(row) = claimed {
            let fence = row.try_get("fence")?;
            writing.commit().await?;
            return Ok(Claim::Ours(fence));
        }
        let select = sqlx::query("SELECT answer FROM deliveries WHERE id = ?").bind(id);
        let answer: Option<String> =
            select.fetch_one(writing.connection()).await?.try_get("answer")?;
        Ok(answer.map_or(Claim::Theirs, Claim::Answered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("s.sqlite")).await.unwrap()
    }

    /// Answers `id` with `answer`, unless it was answered before.
    async fn answer(store: &Store, id: &str, answer: &str) -> String {
        match store.take_up(id).await.unwrap() {
            Delivery::Answered(earlier) => earlier,
            Delivery::Ours(claimed) => {
                claimed.finish(answer).await.unwrap();
                answer.to_owned()
            }
        }
    }

    #[tokio::test]
    async fn work_is_done_once_by_two_processes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let stores = [Arc::new(store(&folder).await), Arc::new(store(&folder).await)];
        let runs = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for n in 0..20 {
            let (store, runs) = (stores[n % 2].clone(), runs.clone());
            tasks.push(tokio::spawn(async move {
                match store.take_up("d").await.unwrap() {
                    Delivery::Answered(answer) => answer,
                    Delivery::Ours(claimed) => {
                        let answer = format!("answer {}", runs.fetch_add(1, Ordering::SeqCst));
                        claimed.finish(&answer).await.unwrap();
                        answer
                    }
                }
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), "answer 0");
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn who_wakes_up_after_a_takeover_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (frozen, twin) = (store(&folder).await, store(&folder).await);
        let Claim::Ours(fence) = frozen.claim("d").await.unwrap() else { panic!("not claimed") };
        // The twin waits for the lease to run out and takes over.
        assert_eq!(answer(&twin, "d", "twin").await, "twin");
        let writing = frozen.begin().await.unwrap();
        let late = Claimed { writing, id: "d", fence }.finish("late").await;
        assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
        assert_eq!(answer(&frozen, "d", "again").await, "twin");
    }

    #[tokio::test]
    async fn work_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let Delivery::Ours(mut claimed) = store.take_up("d").await.unwrap() else {
            panic!("not ours")
        };
        let insert = sqlx::query(
            "INSERT INTO scripts (id, account_id, name) SELECT 9, id, 'x' FROM accounts",
        );
        insert.execute(claimed.connection()).await.unwrap();
        drop(claimed);
        assert_eq!(answer(&store, "d", "now").await, "now");
    }

    #[tokio::test]
    async fn a_store_that_is_held_by_another_is_given_up_quickly() {
        let folder = tempfile::tempdir().unwrap();
        let (holder, other) = (store(&folder).await, store(&folder).await);
        let held = holder.begin().await.unwrap();
        let begun = std::time::Instant::now();
        let refused = other.take_up("d").await;
        assert!(matches!(refused, Err(StoreError::Busy)));
        assert!(begun.elapsed() < Duration::from_secs(2));
        drop(held);
        assert_eq!(answer(&other, "d", "x").await, "x");
    }
}
