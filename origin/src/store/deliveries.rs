//! Doing a thing once, however often it is asked for.
//!
//! A delivery is claimed before it is worked on, and its answer is written in the very transaction
//! that does the work. The claim is a lease with a fence: when it runs out, another process takes the
//! delivery over under the next fence, and the first, should it wake up, finds that its fence no
//! longer fits and does nothing.

use std::time::Duration;

use holdline_twilio::verbs::Response;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Store, StoreError, TRIES, Writing, millis, now_ms};

/// How long a claim holds.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// How often a claim that somebody else holds is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Work that is done once under a delivery id.
pub(crate) trait Work: Sync {
    /// Does it, inside a transaction. Where that came into somebody's way it is done again from the
    /// beginning; what it changed before is undone then.
    fn work(
        &self,
        writing: &mut Writing<'_>,
    ) -> impl Future<Output = Result<Response, StoreError>> + Send;
}

/// A request that may have come before.
enum Delivery<'s> {
    /// It was answered before.
    Answered(String),
    /// It is ours to answer.
    Ours(Claimed<'s>),
}

/// A delivery that is being worked on, in a transaction of its own.
struct Claimed<'s> {
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
    /// Finishes the work with its answer, all or nothing.
    async fn finish(mut self, answer: &str) -> Result<(), StoreError> {
        let finish = "UPDATE deliveries SET answer = ?, finished_ms = ? \
                      WHERE id = ? AND fence = ? AND answer IS NULL";
        let finished = sqlx::query(finish)
            .bind(answer.to_owned())
            .bind(now_ms())
            .bind(self.id.to_owned())
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
    /// Does `work` once under a delivery id, and gives its answer; to whoever asks again, the same.
    pub(crate) async fn once(&self, id: &str, work: &impl Work) -> Result<String, StoreError> {
        let mut tries = 1;
        loop {
            match self.try_once(id, work).await {
                Err(error)
                    if error.passes() && tries < TRIES && self.dialect().waits_for_rows() =>
                {
                    tries += 1
                }
                done => return done,
            }
        }
    }

    async fn try_once(&self, id: &str, work: &impl Work) -> Result<String, StoreError> {
        match self.take_up(id).await? {
            Delivery::Answered(answer) => Ok(answer),
            Delivery::Ours(mut claimed) => {
                let done = work.work(&mut claimed.writing).await;
                match done {
                    Ok(document) => {
                        let answer = document.to_xml();
                        claimed.finish(&answer).await?;
                        Ok(answer)
                    }
                    Err(error) => {
                        let Claimed { writing, fence, .. } = claimed;
                        drop(writing);
                        // Whoever asks again need not wait for the lease.
                        self.give_back(id, fence).await;
                        Err(error)
                    }
                }
            }
        }
    }

    /// Takes up the delivery `id`: its answer if there is one, else the work on it. Waits while
    /// another process works on it, and takes over when that one's lease has run out.
    async fn take_up<'s>(&'s self, id: &'s str) -> Result<Delivery<'s>, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.claim(id).await? {
                Claim::Ours(fence) => {
                    return match self.begin().await {
                        Ok(writing) => Ok(Delivery::Ours(Claimed { writing, id, fence })),
                        Err(error) => {
                            self.give_back(id, fence).await;
                            Err(error)
                        }
                    };
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

    async fn claim(&self, id: &str) -> Result<Claim, StoreError> {
        let now = now_ms();
        let until = now + millis(LEASE);
        let mut writing = self.begin().await?;
        let insert = format!(
            "{} INTO deliveries (id, fence, lease_until_ms, created_ms) VALUES (?, 1, ?, ?)",
            writing.dialect.insert_new()
        );
        let claimed = sqlx::query(AssertSqlSafe(insert))
            .bind(id.to_owned())
            .bind(until)
            .bind(now)
            .execute(writing.connection())
            .await?;
        if claimed.rows_affected() == 1 {
            writing.commit().await?;
            return Ok(Claim::Ours(1));
        }
        let select = "SELECT answer, fence, lease_until_ms FROM deliveries WHERE id = ?";
        let row = sqlx::query(select).bind(id.to_owned()).fetch_one(writing.connection()).await?;
        if let Some(answer) = row.try_get::<Option<String>, _>("answer")? {
            return Ok(Claim::Answered(answer));
        }
        let fence: i64 = row.try_get("fence")?;
        if row.try_get::<i64, _>("lease_until_ms")? >= now {
            return Ok(Claim::Theirs);
        }
        let take_over = "UPDATE deliveries SET fence = ?, lease_until_ms = ? \
                         WHERE id = ? AND fence = ? AND answer IS NULL";
        let taken = sqlx::query(take_over)
            .bind(fence + 1)
            .bind(until)
            .bind(id.to_owned())
            .bind(fence)
            .execute(writing.connection())
            .await?;
        writing.commit().await?;
        Ok(if taken.rows_affected() == 1 { Claim::Ours(fence + 1) } else { Claim::Theirs })
    }

    /// Lets the lease of a delivery end whose work came to nothing. It ends by itself where this fails.
    async fn give_back(&self, id: &str, fence: i64) {
        let update = "UPDATE deliveries SET lease_until_ms = 0 WHERE id = ? AND fence = ? AND answer IS NULL";
        let given_back = async {
            let mut writing = self.begin().await?;
            let query = sqlx::query(update).bind(id.to_owned()).bind(fence);
            query.execute(writing.connection()).await?;
            writing.commit().await
        };
        if let Err(error) = given_back.await {
            tracing::debug!(%error, "a delivery was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&Database::file(&folder.path().join("s.sqlite"))).await.unwrap()
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
        insert.execute(claimed.writing.connection()).await.unwrap();
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
