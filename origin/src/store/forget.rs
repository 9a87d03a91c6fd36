//! Forgetting what nobody can ask for any more, a little at a time, so that nobody waits for it.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::{Store, StoreError, breathe, millis, now_ms};

/// How long answers to requests, orders that were carried out, and what was told to browsers or by the
/// edge are kept. The edge gives up a report that is older.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is forgotten: a table, and by which of its times.
const TABLES: [(&str, &str); 5] = [
    ("deliveries", "created_ms"),
    ("outbox", "done_ms"),
    ("browser_events", "created_ms"),
    ("notices", "created_ms"),
    ("transfer_calls", "ended_ms"),
];
/// How often somebody may be in the way.
const MOST_TRIES: u32 = 100;
/// Rows that are forgotten at once.
const BATCH: i64 = 500;

// === impl Store ===

impl Store {
    /// Forgets what is old; how many rows that were.
    pub async fn forget_what_is_old(&self) -> Result<u64, StoreError> {
        let (mut forgotten, mut tries) = (0, 0);
        for (table, time) in TABLES {
            loop {
                let begun = Instant::now();
                match self.forget_some(table, time).await {
                    Ok(rows) => {
                        forgotten += rows;
                        if rows < BATCH.unsigned_abs() {
                            break;
                        }
                    }
                    // It goes on where it was, unless nobody gets anywhere.
                    Err(error) if error.passes() && tries < MOST_TRIES => tries += 1,
                    Err(error) => return Err(error),
                }
                breathe(begun).await;
            }
        }
        Ok(forgotten)
    }

    async fn forget_some(&self, table: &str, time: &str) -> Result<u64, StoreError> {
        let mut writing = self.begin().await?;
        let query = sqlx::query(AssertSqlSafe(writing.dialect.delete_some(table, time)));
        let query = query.bind(now_ms() - millis(REMEMBERED)).bind(BATCH);
        let deleted = query.execute(writing.connection()).await?.rows_affected();
        writing.commit().await?;
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    #[tokio::test]
    async fn what_is_old_is_forgotten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::file(&folder.path().join("s.sqlite"))).await.unwrap();
        let mut writing = store.begin().await.unwrap();
        for (n, age) in (0..1200).map(|n| (n, if n < 1100 { 8 } else { 6 })) {
            let insert = "INSERT INTO deliveries (id, fence, lease_until_ms, created_ms) VALUES (?, 1, 0, ?)";
            let created = now_ms() - age * 24 * 3_600_000;
            let query = sqlx::query(insert).bind(format!("d{n}")).bind(created);
            query.execute(writing.connection()).await.unwrap();
        }
        for (n, age) in [8, 6].into_iter().enumerate() {
            let insert = "INSERT INTO transfer_calls (call_sid, transfer_id, twilio_status, ended_ms) \
                          VALUES (?, 't', 'completed', ?)";
            let query = sqlx::query(insert).bind(format!("CA{n}"));
            let query = query.bind(now_ms() - age * 24 * 3_600_000);
            query.execute(writing.connection()).await.unwrap();
        }
        writing.commit().await.unwrap();
        assert_eq!(store.forget_what_is_old().await.unwrap(), 1101);
        assert_eq!(store.forget_what_is_old().await.unwrap(), 0);
    }
}
