//! The dial queue: every number of a campaign is in one place of it.
//!
//! | place | left when |
//! |---|---|
//! | available | handed out to a caller: presented |
//! | presented | its call came to an end: bin, completed or failed. Nothing came of it: available, after the campaign's recycle time |
//! | bin | the recycle time is over: available |
//! | blocked | unblocked: bin |
//! | completed | another lead is added: bin |
//! | failed | never |

use std::time::Instant;

use sqlx::{AssertSqlSafe, Row as _};

use super::{Store, StoreError, Writing, breathe, now_ms, rows};
use crate::core::state::{Household, Lead};

/// How many numbers that nobody is left to call at are passed over in one go.
const PASSED_OVER: usize = 25;
/// Numbers that are made available again in one go.
const RECYCLED_AT_ONCE: u64 = 200;
const HOUR_MS: i64 = 3_600_000;

/// Hands out the number that is next in a campaign: the lowest score. With `only_good`, numbers at which
/// nobody is left to call are passed over; they stay handed out until they are recycled.
pub(super) async fn hand_out(
    writing: &mut Writing<'_>,
    campaign: i64,
    only_good: bool,
) -> Result<Option<Household>, StoreError> {
    for _ in 0..PASSED_OVER {
        // What somebody else holds is passed over; where that is all there is, it is waited for.
        let free = next(writing, campaign, writing.dialect.skip_locked()).await?;
        let next = match free {
            None if writing.dialect.waits_for_rows() => {
                next(writing, campaign, writing.dialect.for_update()).await?
            }
            free => free,
        };
        let Some(id) = next else { return Ok(None) };
        let take = "UPDATE households SET place = 'presented', score = ? WHERE id = ? AND place = 'available'";
        let taken = sqlx::query(take).bind(now_ms()).bind(id).execute(writing.connection()).await?;
        if taken.rows_affected() == 0 {
            continue;
        }
        let household = household(writing, id).await?;
        let good = household.as_ref().is_some_and(|household| household.next_lead().is_some());
        if good || !only_good {
            return Ok(household);
        }
    }
    Ok(None)
}

/// The number that is next, held.
async fn next(
    writing: &mut Writing<'_>,
    campaign: i64,
    lock: &str,
) -> Result<Option<i64>, StoreError> {
    let select = format!(
        "SELECT id FROM households WHERE campaign_id = ? AND place = 'available' \
         ORDER BY score, sequence LIMIT 1{lock}"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(select)).bind(campaign);
    Ok(query.fetch_optional(writing.connection()).await?)
}

/// A household with its leads, held.
pub(super) async fn household(
    writing: &mut Writing<'_>,
    id: i64,
) -> Result<Option<Household>, StoreError> {
    let lock = writing.dialect.for_update();
    let query = format!("{} WHERE id = ?{lock}", rows::HOUSEHOLD);
    let row = sqlx::query(AssertSqlSafe(query)).bind(id).fetch_optional(writing.connection());
    let Some(row) = row.await? else { return Ok(None) };
    let query = format!("{} WHERE household_id = ? ORDER BY sequence", rows::LEAD);
    let leads = sqlx::query(AssertSqlSafe(query)).bind(id).fetch_all(writing.connection()).await?;
    let leads: Result<Vec<Lead>, StoreError> = leads.iter().map(rows::lead).collect();
    rows::household(&row, leads?).map(Some)
}

/// Writes what has changed of a household and its leads; without `before`, it was just handed out, and
/// nothing has.
pub(super) async fn save(
    writing: &mut Writing<'_>,
    before: Option<&Household>,
    household: &Household,
) -> Result<(), StoreError> {
    let Some(before) = before else { return Ok(()) };
    let update = "UPDATE households SET place = ?, status = ?, message_left = ? WHERE id = ?";
    sqlx::query(update)
        .bind(household.place.name())
        .bind(household.status.clone())
        .bind(i64::from(household.message_left))
        .bind(household.id)
        .execute(writing.connection())
        .await?;
    for lead in household.leads.iter().filter(|lead| !before.leads.contains(lead)) {
        let update = "UPDATE leads SET status = ?, completed = ?, dispositioned = ?, call_back = ? WHERE id = ?";
        sqlx::query(update)
            .bind(lead.status.clone())
            .bind(i64::from(lead.completed))
            .bind(i64::from(lead.dispositioned))
            .bind(i64::from(lead.call_back))
            .bind(lead.id)
            .execute(writing.connection())
            .await?;
    }
    Ok(())
}

/// Whether a number must not be called in a campaign.
pub(crate) async fn is_blocked(
    writing: &mut Writing<'_>,
    campaign: i64,
    number: &str,
) -> Result<bool, StoreError> {
    let query = "SELECT COUNT(*) FROM blocked_numbers JOIN campaigns \
                 ON campaigns.account_id = blocked_numbers.account_id \
                 WHERE campaigns.id = ? AND blocked_numbers.phone = ? \
                 AND blocked_numbers.campaign_id IN (0, campaigns.id)";
    let query = sqlx::query(query).bind(campaign).bind(number.to_owned());
    Ok(query.fetch_one(writing.connection()).await?.try_get::<i64, _>(0)? > 0)
}

// === impl Store ===

impl Store {
    /// Makes available again what was handed out, or put back, longer ago than the campaign's recycle
    /// time; not what somebody is being offered, or called at. How many numbers that were.
    pub async fn recycle(&self) -> Result<u64, StoreError> {
        let mut connection = self.reading().await?;
        let campaigns: Vec<(i64, i64)> =
            sqlx::query_as("SELECT id, recycle_hours FROM campaigns WHERE active = 1")
                .fetch_all(&mut *connection)
                .await?;
        drop(connection);
        let mut recycled = 0;
        for (campaign, hours) in campaigns {
            let before = now_ms() - hours * HOUR_MS;
            loop {
                let begun = Instant::now();
                let mut writing = self.begin().await?;
                let batch = writing.recycle_some(campaign, before).await?;
                writing.commit().await?;
                recycled += batch;
                if batch < RECYCLED_AT_ONCE {
                    break;
                }
                breathe(begun).await;
            }
        }
        Ok(recycled)
    }

    /// Blocks numbers in every campaign of an account, or in one: a few dozen at the most. A number that a
    /// campaign does not have is kept for when it comes. How many households that put away.
    pub async fn block(
        &self,
        account: i64,
        campaign: Option<i64>,
        phones: &[String],
    ) -> Result<u64, StoreError> {
        let mut writing = self.begin().await?;
        let mut households = 0;
        for phone in phones {
            households += writing.block(account, campaign, phone).await?;
        }
        writing.commit().await?;
        Ok(households)
    }

    /// Takes such blocks back: those numbers are available at the next recycling. How many households
    /// that were.
    pub async fn unblock(
        &self,
        account: i64,
        campaign: Option<i64>,
        phones: &[String],
    ) -> Result<u64, StoreError> {
        let mut writing = self.begin().await?;
        let mut households = 0;
        for phone in phones {
            households += writing.unblock(account, campaign, phone).await?;
        }
        writing.commit().await?;
        Ok(households)
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// A few of those that are due; how many.
    async fn recycle_some(&mut self, campaign: i64, before: i64) -> Result<u64, StoreError> {
        let select = format!(
            "SELECT id FROM households \
             WHERE campaign_id = ? AND place IN ('presented', 'bin') AND score <= ? \
             AND NOT EXISTS (SELECT 1 FROM lead_calls WHERE lead_calls.household_id = households.id \
                             AND lead_calls.stage <> 'over') \
             AND NOT EXISTS (SELECT 1 FROM caller_sessions \
                             WHERE caller_sessions.household_id = households.id \
                             AND caller_sessions.on_call = 1) LIMIT {RECYCLED_AT_ONCE}{}",
            self.dialect.skip_locked()
        );
        let due = sqlx::query_scalar::<_, i64>(AssertSqlSafe(select)).bind(campaign).bind(before);
        let due = due.fetch_all(self.connection()).await?;
        let mut recycled = 0;
        for id in due {
            let update = "UPDATE households SET place = 'available' \
                          WHERE id = ? AND place IN ('presented', 'bin')";
            let done = sqlx::query(update).bind(id).execute(self.connection()).await?;
            recycled += done.rows_affected();
        }
        Ok(recycled)
    }

    async fn block(
        &mut self,
        account: i64,
        campaign: Option<i64>,
        phone: &str,
    ) -> Result<u64, StoreError> {
        let insert = format!(
            "{} INTO blocked_numbers (id, account_id, campaign_id, phone) VALUES (?, ?, ?, ?)",
            self.dialect.insert_new()
        );
        let id = self.id();
        sqlx::query(AssertSqlSafe(insert))
            .bind(id)
            .bind(account)
            .bind(campaign.unwrap_or_default())
            .bind(phone.to_owned())
            .execute(self.connection())
            .await?;
        // What is completed or failed is not called anyhow, and says more that way.
        let update = format!(
            "UPDATE households SET blocked = {DNC}, place = CASE WHEN place IN ('completed', 'failed') \
             THEN place ELSE 'blocked' END WHERE phone = ? AND {}",
            of(campaign)
        );
        let done = sqlx::query(AssertSqlSafe(update))
            .bind(phone.to_owned())
            .bind(campaign.unwrap_or(account))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }

    async fn unblock(
        &mut self,
        account: i64,
        campaign: Option<i64>,
        phone: &str,
    ) -> Result<u64, StoreError> {
        let delete =
            "DELETE FROM blocked_numbers WHERE account_id = ? AND campaign_id = ? AND phone = ?";
        sqlx::query(delete)
            .bind(account)
            .bind(campaign.unwrap_or_default())
            .bind(phone.to_owned())
            .execute(self.connection())
            .await?;
        // One of the two kinds of block may still hold.
        let update = format!(
            "UPDATE households SET blocked = 0, score = CASE WHEN place = 'blocked' THEN 0 ELSE score END, \
             place = CASE WHEN place = 'blocked' THEN 'bin' ELSE place END \
             WHERE phone = ? AND {} AND NOT EXISTS (SELECT 1 FROM blocked_numbers \
             WHERE blocked_numbers.phone = households.phone AND blocked_numbers.account_id = ? \
             AND blocked_numbers.campaign_id IN (0, households.campaign_id))",
            of(campaign)
        );
        let done = sqlx::query(AssertSqlSafe(update))
            .bind(phone.to_owned())
            .bind(campaign.unwrap_or(account))
            .bind(account)
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }
}

/// The bit of a household's mask that says: on a do-not-call list.
pub(crate) const DNC: i64 = 2;

fn of(campaign: Option<i64>) -> &'static str {
    match campaign {
        Some(_) => "campaign_id = ?",
        None => "campaign_id IN (SELECT id FROM campaigns WHERE account_id = ?)",
    }
}
