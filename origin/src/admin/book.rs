//! Accounts, campaigns and callers.

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Row as _};

use super::arguments::{Account, AccountTerms, Caller, Campaign, NewCampaign};
use super::say;
use crate::core::fit::may_predict;
use crate::core::state::Mode;
use crate::store::{Store, StoreError, Writing};

/// How many PINs are tried before one is found that nobody has.
const PINS: usize = 100;

pub(super) async fn account(store: &Store, command: Account) -> anyhow::Result<()> {
    match command {
        Account::Add { name, terms } => {
            let mut writing = store.begin().await?;
            let id = writing.id();
            sqlx::query(
                "INSERT INTO accounts (id, name, plan, provider_status, minutes_allowed, callers_allowed) \
                 VALUES (?, ?, 'trial', 'active', 50, 5)",
            )
            .bind(id)
            .bind(name)
            .execute(writing.connection())
            .await?;
            set_terms(&mut writing, id, &terms).await?;
            writing.commit().await?;
            say(&id.to_string())
        }
        Account::Set { id, terms } => {
            let mut writing = store.begin().await?;
            is_there(&mut writing, "accounts", id).await?;
            set_terms(&mut writing, id, &terms).await?;
            Ok(writing.commit().await?)
        }
        Account::List => {
            let columns = "id, name, plan, minutes_allowed, minutes_used, minutes_pending AS minutes_owed, \
                           minutes_allowed - minutes_used - minutes_pending AS minutes_left, \
                           callers_allowed AS seats, disable_calling, disable_access";
            table(store, &format!("SELECT {columns} FROM accounts ORDER BY id")).await
        }
    }
}

async fn set_terms(
    writing: &mut Writing<'_>,
    id: i64,
    terms: &AccountTerms,
) -> Result<(), StoreError> {
    let provider = terms.paid.map(|paid| if paid { "active" } else { "unpaid" });
    sqlx::query(
        "UPDATE accounts SET plan = COALESCE(?, plan), provider_status = COALESCE(?, provider_status), \
         minutes_allowed = COALESCE(?, minutes_allowed) + ?, callers_allowed = COALESCE(?, callers_allowed), \
         record_calls = COALESCE(?, record_calls), disable_calling = COALESCE(?, disable_calling), \
         disable_access = COALESCE(?, disable_access) WHERE id = ?",
    )
    .bind(terms.plan.clone())
    .bind(provider)
    .bind(terms.minutes)
    .bind(terms.add_minutes.unwrap_or(0))
    .bind(terms.seats)
    .bind(terms.record.map(i64::from))
    .bind(terms.disable_calling.map(i64::from))
    .bind(terms.disable_access.map(i64::from))
    .bind(id)
    .execute(writing.connection())
    .await?;
    Ok(())
}

pub(super) async fn add_recording(
    store: &Store,
    account: i64,
    name: &str,
    url: &url::Url,
) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    is_there(&mut writing, "accounts", account).await?;
    let id = writing.id();
    sqlx::query("INSERT INTO recordings (id, account_id, name, url) VALUES (?, ?, ?, ?)")
        .bind(id)
        .bind(account)
        .bind(name.to_owned())
        .bind(url.to_string())
        .execute(writing.connection())
        .await?;
    writing.commit().await?;
    say(&id.to_string())
}

pub(super) async fn campaign(store: &Store, command: Campaign) -> anyhow::Result<()> {
    match command {
        Campaign::Add(new) => add_campaign(store, *new).await,
        Campaign::Hours { id, hours: (start, end) } => {
            let mut writing = store.begin().await?;
            is_there(&mut writing, "campaigns", id).await?;
            sqlx::query("UPDATE campaigns SET start_hour = ?, end_hour = ? WHERE id = ?")
                .bind(start)
                .bind(end)
                .bind(id)
                .execute(writing.connection())
                .await?;
            Ok(writing.commit().await?)
        }
        Campaign::Archive { id } => {
            let mut writing = store.begin().await?;
            is_there(&mut writing, "campaigns", id).await?;
            for change in [
                "UPDATE campaigns SET active = 0 WHERE id = ?",
                "UPDATE callers SET campaign_id = NULL WHERE campaign_id = ?",
            ] {
                sqlx::query(change).bind(id).execute(writing.connection()).await?;
            }
            Ok(writing.commit().await?)
        }
        Campaign::List => {
            let campaigns = store.campaigns().await?;
            say("id\tname\tmode\tactive\tavailable\tpresented\tbin\tblocked\tcompleted\tfailed")?;
            for campaign in campaigns {
                let cell = |name: &str| {
                    campaign[name]
                        .as_str()
                        .map_or_else(|| campaign[name].to_string(), str::to_owned)
                };
                let cells = [
                    "id",
                    "name",
                    "mode",
                    "active",
                    "available",
                    "presented",
                    "bin",
                    "blocked",
                    "completed",
                    "failed",
                ]
                .map(cell);
                say(&cells.join("\t"))?;
            }
            Ok(())
        }
    }
}

async fn add_campaign(store: &Store, new: NewCampaign) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    is_there(&mut writing, "accounts", new.account).await?;
    belongs(&mut writing, "scripts", new.script, new.account).await?;
    if let Some(recording) = new.recording {
        belongs(&mut writing, "recordings", recording, new.account).await?;
    }
    let plan = sqlx::query("SELECT plan FROM accounts WHERE id = ?").bind(new.account);
    let plan: String = plan.fetch_one(writing.connection()).await?.try_get(0)?;
    let predictive = Mode::from(new.mode) == Mode::Predictive;
    ensure!(!predictive || may_predict(&plan), "the plan {plan} has no predictive campaigns");
    let id = writing.id();
    let flag = i64::from;
    sqlx::query(
        "INSERT INTO campaigns (id, account_id, name, mode, caller_id, script_id, start_hour, end_hour, \
         time_zone, recycle_hours, detect_machines, use_recordings, recording_id, drop_by_hand, \
         call_back_after_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(new.account)
    .bind(new.name)
    .bind(Mode::from(new.mode).name())
    .bind(new.caller_id)
    .bind(new.script)
    .bind(new.hours.0)
    .bind(new.hours.1)
    .bind(new.time_zone)
    .bind(new.recycle_hours)
    .bind(flag(new.detect_machines))
    .bind(flag(new.leave_message))
    .bind(new.recording)
    .bind(flag(new.drop_by_hand))
    .bind(flag(new.call_back_after_message && (new.leave_message || new.drop_by_hand)))
    .execute(writing.connection())
    .await?;
    writing.commit().await?;
    say(&id.to_string())
}

pub(super) async fn caller(store: &Store, command: Caller) -> anyhow::Result<()> {
    match command {
        Caller::Add { account, name, campaign, web, pin } => {
            add_caller(store, account, &name, campaign, web, pin).await
        }
        Caller::Move { id, campaign } => {
            let mut writing = store.begin().await?;
            is_there(&mut writing, "callers", id).await?;
            if let Some(campaign) = campaign {
                let account = account_of(&mut writing, "callers", id).await?;
                belongs(&mut writing, "campaigns", campaign, account).await?;
            }
            sqlx::query("UPDATE callers SET campaign_id = ? WHERE id = ?")
                .bind(campaign)
                .bind(id)
                .execute(writing.connection())
                .await?;
            Ok(writing.commit().await?)
        }
        Caller::Active { id, active } => {
            let mut writing = store.begin().await?;
            is_there(&mut writing, "callers", id).await?;
            sqlx::query("UPDATE callers SET active = ? WHERE id = ?")
                .bind(i64::from(active))
                .bind(id)
                .execute(writing.connection())
                .await?;
            Ok(writing.commit().await?)
        }
        Caller::List => {
            let columns = "id, account_id AS account, campaign_id AS campaign, name, pin, phones_only, active";
            table(store, &format!("SELECT {columns} FROM callers ORDER BY id")).await
        }
    }
}

async fn add_caller(
    store: &Store,
    account: i64,
    name: &str,
    campaign: Option<i64>,
    web: bool,
    pin: Option<String>,
) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    is_there(&mut writing, "accounts", account).await?;
    if let Some(campaign) = campaign {
        belongs(&mut writing, "campaigns", campaign, account).await?;
    }
    let pin = match pin {
        Some(pin) => {
            ensure!(is_free(&mut writing, &pin).await?, "the PIN {pin} is somebody else's");
            pin
        }
        None => free_pin(&mut writing).await?,
    };
    let id = writing.id();
    sqlx::query(
        "INSERT INTO callers (id, account_id, campaign_id, name, pin, phones_only) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(account)
    .bind(campaign)
    .bind(name.to_owned())
    .bind(pin.clone())
    .bind(i64::from(!web))
    .execute(writing.connection())
    .await?;
    writing.commit().await?;
    say(&format!("{id}\t{pin}"))
}

/// A PIN that is nobody's, nor a browser page's.
async fn free_pin(writing: &mut Writing<'_>) -> anyhow::Result<String> {
    for _ in 0..PINS {
        let mut bytes = [0u8; 4];
        getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
        let pin = format!("{:07}", u32::from_be_bytes(bytes) % 10_000_000);
        if is_free(writing, &pin).await? {
            return Ok(pin);
        }
    }
    anyhow::bail!("no PIN is free: remove callers who are no more")
}

async fn is_free(writing: &mut Writing<'_>, pin: &str) -> Result<bool, StoreError> {
    for table in ["callers", "caller_identities"] {
        let query = format!("SELECT COUNT(*) FROM {table} WHERE pin = ?");
        let query = sqlx::query(AssertSqlSafe(query)).bind(pin.to_owned());
        if query.fetch_one(writing.connection()).await?.try_get::<i64, _>(0)? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fails where there is no such row.
pub(super) async fn is_there(
    writing: &mut Writing<'_>,
    table: &str,
    id: i64,
) -> anyhow::Result<()> {
    let query = format!("SELECT COUNT(*) FROM {table} WHERE id = ?");
    let row = sqlx::query(AssertSqlSafe(query)).bind(id).fetch_one(writing.connection()).await?;
    let what = table.trim_end_matches('s');
    ensure!(row.try_get::<i64, _>(0)? > 0, "there is no {what} {id}");
    Ok(())
}

/// Fails where there is no such row, or it is another account's.
pub(super) async fn belongs(
    writing: &mut Writing<'_>,
    table: &str,
    id: i64,
    account: i64,
) -> anyhow::Result<()> {
    is_there(writing, table, id).await?;
    let owner = account_of(writing, table, id).await?;
    let what = table.trim_end_matches('s');
    ensure!(owner == account, "{what} {id} belongs to account {owner}");
    Ok(())
}

async fn account_of(writing: &mut Writing<'_>, table: &str, id: i64) -> Result<i64, StoreError> {
    let query = format!("SELECT account_id FROM {table} WHERE id = ?");
    let row = sqlx::query(AssertSqlSafe(query)).bind(id).fetch_one(writing.connection()).await?;
    Ok(row.try_get(0)?)
}

/// Writes what a query finds, one line a row, with tabs between the columns.
pub(super) async fn table(store: &Store, query: &str) -> anyhow::Result<()> {
    use sqlx::Column as _;
    let mut connection = store.reading().await?;
    let rows = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut *connection).await?;
    if let Some(first) = rows.first() {
        let names: Vec<&str> = first.columns().iter().map(|column| column.name()).collect();
        say(&names.join("\t"))?;
    }
    for row in &rows {
        let cells: Vec<String> = (0..row.len()).map(|n| super::results::cell(row, n)).collect();
        say(&cells.join("\t"))?;
    }
    Ok(())
}
