//! Forgetting what nobody can ask for any more, a little at a time, so that nobody waits for it.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Store, StoreError, millis, now_ms};

/// How long answers to requests, orders that were carried out, and what browsers were told are kept. The
/// edge gives up a report that is older.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is forgotten, and by which of its times.
const TABLES: [(&str, &str); 3] =
    [("deliveries", "created_ms"), ("outbox", "done_ms"), ("browser_events", "created_ms")];
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
                // Others want to write as well.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(forgotten)
    }

    async fn forget_some(&self, table: &str, time: &str) -> Result<u64, StoreError> {
        // MySQL reads no table that it deletes from but through another one.
        let delete = format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id FROM {table} WHERE {time} < ? LIMIT ?) old_ones)"
        );
        let mut writing = self.begin().await?;
        let query = sqlx::query(AssertSqlSafe(delete));
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
        writing.commit().await.unwrap();
        assert_eq!(store.forget_what_is_old().await.unwrap(), 1100);
        assert_eq!(store.forget_what_is_old().await.unwrap(), 0);
    }
}
