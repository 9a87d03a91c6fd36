//! What is said to the database, statement by statement.

use std::time::Duration;

use bytes::Bytes;
use holdline_policy::redelivery::STEPS_ASIDE;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::delivery::{Delivery, Kind, State, age_of, unix_ms};
use super::filter::Filter;
use super::job::Which;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// The longest that anything waits for its turn by design. What is due later than that became so by a
/// clock that was put back.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How much is in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Deliveries that wait.
    pub waiting: u64,
    /// Those that were delivered and are not yet forgotten.
    pub delivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// What they all take up, in bytes.
    pub bytes: u64,
    /// The place of the oldest that waits.
    pub oldest: Option<i64>,
}

impl Contents {
    /// The age of the oldest delivery that waits.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest.map(age_of)
    }
}

/// Where a walk through what is due has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    due_ms: i64,
    place: i64,
}

const COLUMNS: &str = "place, kind, id, ordered_by, row, account, call, method, target, fields, body, \
     signature, client, state, reason, due_ms, tries, setbacks, last_outcome, tried_ms, \
     revived_ms";

/// Keeps a delivery. False if it is there already.
pub(super) async fn insert(connection: &mut SqliteConnection, delivery: &Delivery) -> Result<bool> {
    let mut place = delivery.place;
    loop {
        let query = "INSERT INTO deliveries (place, kind, id, ordered_by, row, account, call, method, target, \
                     fields, body, signature, client, size, state, reason, due_ms, tries, setbacks, \
                     last_outcome, tried_ms, revived_ms, ended_ms) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                     ON CONFLICT DO NOTHING";
        let ended_ms = (delivery.state != State::Waiting).then(unix_ms);
        let inserted = sqlx::query(query)
            .bind(place)
            .bind(delivery.kind.code())
            .bind(&delivery.id)
            .bind(&delivery.order)
            .bind(&delivery.row)
            .bind(&delivery.account)
            .bind(&delivery.call)
            .bind(&delivery.method)
            .bind(&delivery.target)
            .bind(&delivery.fields)
            .bind(delivery.body.as_ref())
            .bind(delivery.signature.as_deref())
            .bind(delivery.client.map(|client| client.to_string()))
            .bind(number(delivery.size()))
            .bind(delivery.state.code())
            .bind(delivery.state.reason())
            .bind(delivery.due_ms)
            .bind(delivery.tries)
            .bind(delivery.setbacks)
            .bind(&delivery.last_outcome)
            .bind(delivery.tried_ms)
            .bind(delivery.revived_ms)
            .bind(ended_ms)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        if inserted == 1 {
            return Ok(true);
        }
        let same = sqlx::query("SELECT 1 FROM deliveries WHERE id = ?").bind(&delivery.id);
        if same.fetch_optional(&mut *connection).await?.is_some() {
            return Ok(false);
        }
        // Another process has taken this place in the very same moment.
        place += 1;
    }
}

/// Notes what became of a delivery that waits. False if it does not wait any more.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    place: i64,
    state: State,
    outcome: &str,
) -> Result<bool> {
    let query = "UPDATE deliveries SET state = ?, reason = ?, ended_ms = ?, tries = tries + 1, \
                 last_outcome = ? WHERE place = ? AND state = 0";
    let done = sqlx::query(query)
        .bind(state.code())
        .bind(state.reason())
        .bind(unix_ms())
        .bind(outcome)
        .bind(place);
    Ok(done.execute(connection).await?.rows_affected() == 1)
}

/// Notes that a try failed, and when the next may follow. Those behind it wait as long, unless it steps
/// aside.
pub(super) async fn postpone(
    connection: &mut SqliteConnection,
    which: &Which,
    due_ms: i64,
    setbacks: u32,
    outcome: &str,
) -> Result<()> {
    let query = "UPDATE deliveries SET tries = tries + 1, setbacks = ?, due_ms = ?, \
                 last_outcome = ?, tried_ms = ? WHERE place = ? AND state = 0";
    let tried = sqlx::query(query).bind(setbacks).bind(due_ms).bind(outcome).bind(unix_ms());
    tried.bind(which.place).execute(&mut *connection).await?;
    if setbacks < STEPS_ASIDE {
        wait_for_the_first(connection, &which.order, due_ms).await?;
    }
    Ok(())
}

/// Lets everything of a call that is due wait until its first delivery is.
pub(super) async fn wait_for_the_first(
    connection: &mut SqliteConnection,
    order: &str,
    due_ms: i64,
) -> Result<()> {
    let query = "UPDATE deliveries SET due_ms = ?1 \
                 WHERE state = 0 AND ordered_by = ?2 AND due_ms < ?1 AND setbacks < ?3";
    let waits = sqlx::query(query).bind(due_ms).bind(order).bind(STEPS_ASIDE);
    waits.execute(connection).await?;
    Ok(())
}

/// The calls of what is due, in the order in which it became so, from `after` on; and how far that went.
pub(super) async fn due(
    connection: &mut SqliteConnection,
    after: Cursor,
    most: u32,
) -> Result<(Vec<String>, Option<Cursor>)> {
    let query = "SELECT due_ms, place, ordered_by FROM deliveries \
                 WHERE state = 0 AND (due_ms, place) > (?, ?) AND due_ms <= ? \
                 ORDER BY due_ms, place LIMIT ?";
    let rows = sqlx::query(query)
        .bind(after.due_ms)
        .bind(after.place)
        .bind(unix_ms())
        .bind(most)
        .fetch_all(connection)
        .await?;
    let mut orders = Vec::with_capacity(rows.len());
    let mut cursor = None;
    for row in rows {
        cursor = Some(Cursor { due_ms: row.try_get(0)?, place: row.try_get(1)? });
        orders.push(row.try_get(2)?);
    }
    Ok((orders, cursor))
}

/// The calls of what became due last.
pub(super) async fn newest_due(
    connection: &mut SqliteConnection,
    most: u32,
) -> Result<Vec<String>> {
    let query = "SELECT ordered_by FROM deliveries WHERE state = 0 AND due_ms <= ? \
                 ORDER BY due_ms DESC, place DESC LIMIT ?";
    sqlx::query_scalar(query).bind(unix_ms()).bind(most).fetch_all(connection).await
}

/// The delivery of a call whose turn it is: the oldest that has not stepped aside; else, or while that
/// is not due, one that has, and is due.
pub(super) async fn first_of(
    connection: &mut SqliteConnection,
    order: &str,
) -> Result<Option<(Delivery, bool)>> {
    let in_line = format!(
        "SELECT {COLUMNS} FROM deliveries \
         WHERE state = 0 AND ordered_by = ? AND setbacks < ? ORDER BY place LIMIT 1"
    );
    let aside = format!(
        "SELECT {COLUMNS} FROM deliveries \
         WHERE state = 0 AND ordered_by = ? AND setbacks >= ? ORDER BY due_ms LIMIT 1"
    );
    let mut first = None;
    for query in [in_line, aside] {
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(order).bind(STEPS_ASIDE);
        let Some(row) = query.fetch_optional(&mut *connection).await? else { continue };
        let delivery = read(&row)?;
        if delivery.due_ms <= unix_ms() {
            return Ok(Some((delivery, true)));
        }
        first = first.or(Some((delivery, false)));
    }
    Ok(first)
}

/// Makes due what a clock that was put back has moved out of reach.
pub(super) async fn mend_due(connection: &mut SqliteConnection) -> Result<()> {
    let now = unix_ms();
    let query = sqlx::query("UPDATE deliveries SET due_ms = ? WHERE state = 0 AND due_ms > ?");
    query.bind(now).bind(now + millis(LONGEST_WAIT)).execute(connection).await?;
    Ok(())
}

/// How much there is.
pub(super) async fn contents(connection: &mut SqliteConnection) -> Result<Contents> {
    let mut contents = Contents::default();
    let query = "SELECT state, COUNT(*), SUM(size) FROM deliveries GROUP BY state";
    for row in sqlx::query(query).fetch_all(&mut *connection).await? {
        let (state, count, bytes): (i64, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let counted = match State::of(state, None) {
            State::Waiting => &mut contents.waiting,
            State::Delivered => &mut contents.delivered,
            State::Dead(_) => &mut contents.dead,
        };
        *counted = count.unsigned_abs();
        contents.bytes += bytes.unsigned_abs();
    }
    contents.oldest = oldest(connection).await?;
    Ok(contents)
}

/// The place of the oldest delivery that waits.
pub(super) async fn oldest(connection: &mut SqliteConnection) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "SELECT MIN(place) FROM deliveries INDEXED BY waiting_in_order WHERE state = 0",
    )
    .fetch_one(connection)
    .await
}

/// The highest place there is.
pub(super) async fn last_place(connection: &mut SqliteConnection) -> Result<Option<i64>> {
    sqlx::query_scalar("SELECT MAX(place) FROM deliveries").fetch_one(connection).await
}

/// Of everything that waits, the call; one after the other, however many there are.
pub(super) async fn each_waiting(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(&str),
) -> Result<()> {
    use futures::TryStreamExt as _;
    let query = sqlx::query("SELECT ordered_by FROM deliveries WHERE state = 0");
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        take(row.try_get(0)?);
    }
    Ok(())
}

/// Forgets deliveries that were taken before `before_ms`, at most so many; gives back how many, and the
/// bytes they took up.
pub(super) async fn forget_delivered(
    connection: &mut SqliteConnection,
    before_ms: i64,
    most: u32,
) -> Result<(u64, u64)> {
    let query = "DELETE FROM deliveries WHERE place IN \
                 (SELECT place FROM deliveries WHERE state = 1 AND state <> 0 AND ended_ms < ? ORDER BY ended_ms LIMIT ?) \
                 RETURNING size";
    let sizes: Vec<i64> =
        sqlx::query_scalar(query).bind(before_ms).bind(most).fetch_all(connection).await?;
    Ok((sizes.len() as u64, sizes.iter().map(|size| size.unsigned_abs()).sum()))
}

/// Gives disk space back that is not needed, at most so many pages.
pub(super) async fn shrink(connection: &mut SqliteConnection, pages: u32) -> Result<()> {
    let query = format!("PRAGMA incremental_vacuum({pages})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(query)).execute(connection).await?;
    Ok(())
}

/// Copies what can be copied from the log into the database, without waiting for anybody.
pub(super) async fn checkpoint(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await?;
    Ok(())
}

/// Changes when another connection has changed the database.
pub(super) async fn version(connection: &mut SqliteConnection) -> Result<i64> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

/// How many pages are in the log, and how many of them were copied into the database.
pub(super) async fn log_pages(connection: &mut SqliteConnection) -> Result<(i64, i64)> {
    let row = sqlx::query("PRAGMA wal_checkpoint(NOOP)").fetch_one(connection).await?;
    Ok((row.try_get(1)?, row.try_get(2)?))
}

/// One page of what a filter chooses, in the order of arrival, behind the place `after`.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: i64,
    most: u32,
) -> Result<Vec<Delivery>> {
    match readable(connection, filter, after, most).await {
        (found, None) => Ok(found),
        (_, Some(error)) => Err(error),
    }
}

/// The same of a file that may be damaged: what can be read, and the fault that ended it.
pub(super) async fn readable(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: i64,
    most: u32,
) -> (Vec<Delivery>, Option<sqlx::Error>) {
    use futures::StreamExt as _;
    let chosen = filter.chosen();
    let query = format!("SELECT {COLUMNS} FROM deliveries WHERE {chosen} ORDER BY place LIMIT ?9");
    let mut rows = filter.bind(query, after).bind(most).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.next().await {
        match row.and_then(|row| read(&row)) {
            Ok(delivery) => found.push(delivery),
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}

/// A delivery that a tool is about to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) place: i64,
    pub(super) state: State,
    pub(super) order: String,
    pub(super) bytes: u64,
}

/// The next of what a filter chooses, behind a place.
async fn choose(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: i64,
    most: u32,
) -> Result<Vec<Chosen>> {
    let query = format!(
        "SELECT place, state, ordered_by, size FROM deliveries WHERE {} ORDER BY place LIMIT ?9",
        filter.chosen()
    );
    let rows = filter.bind(query, after).bind(most).fetch_all(connection).await?;
    let chosen = |row: &SqliteRow| {
        let size: i64 = row.try_get(3)?;
        Ok(Chosen {
            place: row.try_get(0)?,
            state: State::of(row.try_get(1)?, None),
            order: row.try_get(2)?,
            bytes: size.unsigned_abs(),
        })
    };
    rows.iter().map(chosen).collect()
}

/// Makes the next of what a filter chooses due at once, and all its tries forgotten.
pub(super) async fn replay(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: i64,
    most: u32,
) -> Result<Vec<Chosen>> {
    let chosen = choose(connection, filter, after, most).await?;
    for delivery in &chosen {
        let query = "UPDATE deliveries SET state = 0, reason = NULL, ended_ms = NULL, tries = 0, \
                     setbacks = 0, tried_ms = NULL, revived_ms = ?1, due_ms = ?1 WHERE place = ?2";
        let revived = sqlx::query(query).bind(unix_ms()).bind(delivery.place);
        revived.execute(&mut *connection).await?;
    }
    Ok(chosen)
}

/// Removes the next of what a filter chooses. What stood behind it waits no longer.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: i64,
    most: u32,
) -> Result<Vec<Chosen>> {
    let chosen = choose(connection, filter, after, most).await?;
    for Chosen { place, state, order, .. } in &chosen {
        let query = sqlx::query("DELETE FROM deliveries WHERE place = ?").bind(place);
        query.execute(&mut *connection).await?;
        if *state == State::Waiting {
            let query =
                "UPDATE deliveries SET due_ms = ? WHERE state = 0 AND ordered_by = ? AND tries = 0";
            sqlx::query(query).bind(unix_ms()).bind(order).execute(&mut *connection).await?;
        }
    }
    Ok(chosen)
}

/// How many a filter chooses, and the place of the last of them.
pub(super) async fn count(
    connection: &mut SqliteConnection,
    filter: &Filter,
) -> Result<(u64, i64)> {
    let query = format!(
        "SELECT COUNT(*), COALESCE(MAX(place), 0) FROM deliveries WHERE {}",
        filter.chosen()
    );
    let row = filter.bind(query, 0).fetch_one(connection).await?;
    let count: i64 = row.try_get(0)?;
    Ok((count.unsigned_abs(), row.try_get(1)?))
}

fn read(row: &SqliteRow) -> Result<Delivery> {
    let reason: Option<String> = row.try_get("reason")?;
    let client: Option<String> = row.try_get("client")?;
    let body: Vec<u8> = row.try_get("body")?;
    Ok(Delivery {
        place: row.try_get("place")?,
        kind: Kind::of(row.try_get("kind")?),
        id: row.try_get("id")?,
        order: row.try_get("ordered_by")?,
        row: row.try_get("row")?,
        account: row.try_get("account")?,
        call: row.try_get("call")?,
        method: row.try_get("method")?,
        target: row.try_get("target")?,
        fields: row.try_get("fields")?,
        body: Bytes::from(body),
        signature: row.try_get("signature")?,
        client: client.and_then(|client| client.parse().ok()),
        state: State::of(row.try_get("state")?, reason.as_deref()),
        due_ms: row.try_get("due_ms")?,
        tries: row.try_get("tries")?,
        setbacks: row.try_get("setbacks")?,
        last_outcome: row.try_get("last_outcome")?,
        tried_ms: row.try_get("tried_ms")?,
        revived_ms: row.try_get("revived_ms")?,
    })
}

fn number(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
