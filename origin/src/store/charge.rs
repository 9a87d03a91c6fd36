//! Calls that have ended are charged to their account's minutes: every one once, by whichever process
//! comes first.
//!
//! A minute that was begun is charged whole. Charged are callers who dialed in, and leads and whoever
//! answered for them; not the browser's own telephone, and not calls that nobody answered. What an
//! account has no minutes left for is owed: it is taken from the next ones.

use std::collections::BTreeMap;
use std::time::Instant;

use sqlx::{AssertSqlSafe, Row as _};

use super::{Store, StoreError, Writing, breathe};

/// Calls that are charged in one transaction.
const BATCH: i64 = 100;
/// Callers' legs: as long as Twilio says, or from our beginning to our end if it does not.
const SESSIONS: Charged = Charged {
    table: "caller_sessions",
    account: "account_id",
    length_ms: "CASE WHEN caller_type = 'Phone' \
                THEN COALESCE(duration_s * 1000, ended_ms - started_ms) ELSE 0 END",
};
/// Leads' legs: as long as Twilio says, or from the answer to the end if it does not.
const LEAD_CALLS: Charged = Charged {
    table: "lead_calls",
    account: "(SELECT account_id FROM campaigns WHERE campaigns.id = lead_calls.campaign_id)",
    length_ms: "CASE WHEN outcome IN ('no answer', 'busy', 'failed') THEN 0 \
                ELSE COALESCE(duration_s * 1000, ended_ms - answered_ms, 0) END",
};

/// A table of legs that are charged.
#[derive(Debug, Clone, Copy)]
struct Charged {
    table: &'static str,
    /// Whose a row is.
    account: &'static str,
    /// How long it lasted.
    length_ms: &'static str,
}

// === impl Store ===

impl Store {
    /// Charges what has ended and was not charged yet; how many minutes that were.
    pub async fn charge(&self) -> Result<i64, StoreError> {
        let mut minutes = 0;
        for charged in [SESSIONS, LEAD_CALLS] {
            loop {
                let begun = Instant::now();
                let mut writing = self.begin().await?;
                let (legs, batch) = writing.charge_some(charged).await?;
                writing.commit().await?;
                minutes += batch;
                if legs < BATCH {
                    break;
                }
                breathe(begun).await;
            }
        }
        Ok(minutes)
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// How many legs, and how many minutes.
    async fn charge_some(&mut self, charged: Charged) -> Result<(i64, i64), StoreError> {
        let Charged { table, account, length_ms } = charged;
        // What another process is charging just now is left to it.
        let select = format!(
            "SELECT id, {account} AS account, {length_ms} AS length_ms FROM {table} \
             WHERE charged_minutes IS NULL AND ended_ms > 0 ORDER BY ended_ms LIMIT {BATCH}{}",
            self.dialect.skip_locked()
        );
        let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(self.connection()).await?;
        let mut by_account = BTreeMap::new();
        let mark = format!("UPDATE {table} SET charged_minutes = ? WHERE id = ?");
        for row in &rows {
            let minutes = minutes(row.try_get("length_ms")?);
            *by_account.entry(row.try_get::<i64, _>("account")?).or_insert(0) += minutes;
            let mark = sqlx::query(AssertSqlSafe(mark.clone())).bind(minutes);
            let mark = mark.bind(row.try_get::<i64, _>("id")?);
            mark.execute(self.connection()).await?;
        }
        for (account, minutes) in &by_account {
            self.take_minutes(*account, *minutes).await?;
        }
        Ok((i64::try_from(rows.len()).unwrap_or(BATCH), by_account.values().sum()))
    }

    async fn take_minutes(&mut self, account: i64, minutes: i64) -> Result<(), StoreError> {
        if minutes == 0 {
            return Ok(());
        }
        // Whoever pays for no minutes owes none.
        const LEFT: &str = "CASE WHEN plan = 'enterprise' THEN 1000000000000 \
                            WHEN minutes_used < minutes_allowed THEN minutes_allowed - minutes_used \
                            ELSE 0 END";
        // MySQL sees in the second assignment what the first one made; this order suits both.
        let update = format!(
            "UPDATE accounts SET \
             minutes_pending = minutes_pending + CASE WHEN ? > {LEFT} THEN ? - {LEFT} ELSE 0 END, \
             minutes_used = minutes_used + CASE WHEN ? > {LEFT} THEN {LEFT} ELSE ? END WHERE id = ?"
        );
        let mut update = sqlx::query(AssertSqlSafe(update));
        for number in [minutes, minutes, minutes, minutes, account] {
            update = update.bind(number);
        }
        update.execute(self.connection()).await?;
        Ok(())
    }
}

/// Minutes that were begun.
fn minutes(length_ms: i64) -> i64 {
    (length_ms.max(0) + 59_999) / 60_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    /// Callers' legs of the sample account, one a second of length, and leads' legs that ended so.
    async fn legs(store: &Store, callers: &[(&str, i64)], leads: &[(&str, Option<i64>)]) {
        let mut writing = store.begin().await.unwrap();
        for (kind, seconds) in callers {
            let insert = "INSERT INTO caller_sessions (id, account_id, caller_id, campaign_id, call_sid, \
                          session_key, phones_only, caller_type, on_call, stage, started_ms, changed_ms, \
                          checked_ms, ended_ms) VALUES (?, 1, 1, 1, ?, '', 1, ?, 0, 'ended', 1000, 0, 0, ?)";
            let id = writing.id();
            let query = sqlx::query(insert).bind(id).bind(format!("CA{id}"));
            let query = query.bind((*kind).to_owned()).bind(1000 + seconds * 1000);
            query.execute(writing.connection()).await.unwrap();
        }
        for (outcome, seconds) in leads {
            let insert = "INSERT INTO lead_calls (id, campaign_id, household_id, lead_id, phone, stage, \
                          outcome, duration_s, created_ms, answered_ms, checked_ms, ended_ms) \
                          VALUES (?, 1, 1, 1, '', 'over', ?, ?, 0, 1000, 0, 62000)";
            let query = sqlx::query(insert).bind(writing.id()).bind((*outcome).to_owned());
            query.bind(*seconds).execute(writing.connection()).await.unwrap();
        }
        writing.commit().await.unwrap();
    }

    async fn account(store: &Store) -> (i64, i64) {
        let mut connection = store.reading().await.unwrap();
        let query =
            sqlx::query_as("SELECT minutes_used, minutes_pending FROM accounts WHERE id = 1");
        query.fetch_one(&mut *connection).await.unwrap()
    }

    #[tokio::test]
    async fn minutes_that_were_begun_are_charged_and_what_is_not_there_is_owed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::file(&folder.path().join("s.sqlite"))).await.unwrap();
        store.add_sample().await.unwrap();
        let mut writing = store.begin().await.unwrap();
        let few = sqlx::query("UPDATE accounts SET minutes_allowed = 10");
        few.execute(writing.connection()).await.unwrap();
        writing.commit().await.unwrap();
        // 1 and 2 minutes; a browser's own telephone costs nothing.
        legs(&store, &[("Phone", 60), ("Phone", 61), ("Twilio client", 600)], &[]).await;
        assert_eq!(store.charge().await.unwrap(), 3);
        assert_eq!(account(&store).await, (3, 0));
        // 1 and 2 minutes, the second by the clock; nobody answered the others.
        let leads = [
            ("completed", Some(7)),
            ("message delivered", None),
            ("busy", None),
            ("failed", Some(9)),
        ];
        legs(&store, &[], &leads).await;
        assert_eq!(store.charge().await.unwrap(), 3);
        assert_eq!(account(&store).await, (6, 0));
        // Half of it is there, half is owed; then all is owed.
        legs(&store, &[("Phone", 8 * 60)], &[]).await;
        assert_eq!(store.charge().await.unwrap(), 8);
        assert_eq!(account(&store).await, (10, 4));
        legs(&store, &[("Phone", 1)], &[]).await;
        assert_eq!(store.charge().await.unwrap(), 1);
        assert_eq!(account(&store).await, (10, 5));
        assert_eq!(store.charge().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn two_processes_charge_every_leg_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = Database::file(&folder.path().join("s.sqlite"));
        let one = Store::open_with(&file, std::time::Duration::from_secs(20)).await.unwrap();
        let two = Store::open_with(&file, std::time::Duration::from_secs(20)).await.unwrap();
        one.add_sample().await.unwrap();
        legs(&one, &[("Phone", 1); 1200], &[]).await;
        let (first, second) = tokio::join!(one.charge(), two.charge());
        assert_eq!(first.unwrap() + second.unwrap(), 1200);
        assert_eq!(account(&one).await, (1200, 0));
    }
}
