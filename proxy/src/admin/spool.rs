//! The spool over the admin plane: to list, show, send again, remove, carry out and take in.
//!
//! Everything here needs the admin token, because it shows what callers said and changes what becomes of
//! it. Every change is written to the audit log. What destroys has to name how many it destroys.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Control;
use super::token::{Answer, Refused};
use crate::Holdline;
use crate::spool::tools::{PAGE, Reader, ToolFault};
use crate::spool::{Carried, Delivery, Filter, Numbers, Spool, listed, shown};

/// The largest part of a spool that is taken in at once.
const LARGEST_IMPORT: usize = 64 * 1024 * 1024;

/// The spool's routes.
pub(super) fn router() -> Router<Control> {
    Router::new()
        .route("/spool", get(list))
        .route("/spool/delivery/{id}", get(show))
        .route("/spool/export", get(export))
        .route("/spool/replay", post(replay))
        .route("/spool/drop", post(remove))
        .route("/spool/import", post(import).layer(DefaultBodyLimit::max(LARGEST_IMPORT)))
}

/// What is asked of a list, in the query: what chooses, where it goes on, whether numbers are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listing {
    #[serde(flatten)]
    filter: FilterText,
    after: i64,
    numbers: bool,
}

/// A filter as a query has it: all of it text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FilterText {
    id: Option<String>,
    state: Option<String>,
    row: Option<String>,
    call: Option<String>,
    account: Option<String>,
    older_than: Option<String>,
    newer_than: Option<String>,
}

/// What is asked of a change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    filter: Filter,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// How many are to be destroyed.
    confirm: Option<u64>,
}

impl From<ToolFault> for Refused {
    fn from(fault: ToolFault) -> Refused {
        let status = match fault {
            ToolFault::Filter(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused(status, fault.to_string())
    }
}

async fn list(State(holdline): State<Arc<Holdline>>, Query(asked): Query<Listing>) -> Answer {
    let filter = asked.filter.read()?;
    let page = reader(&holdline).await?.page(&filter, asked.after).await?;
    let next = (page.len() == PAGE as usize).then(|| page.last().map(|last| last.place));
    let deliveries: Vec<Value> = page.iter().map(listed).collect();
    Ok(Json(json!({ "deliveries": deliveries, "next": next.flatten() })))
}

async fn show(
    State(holdline): State<Arc<Holdline>>,
    Path(id): Path<String>,
    Query(asked): Query<Listing>,
) -> Answer {
    let filter = Filter { id: Some(id), ..Filter::default() };
    let found = reader(&holdline).await?.page(&filter, 0).await?;
    let numbers = if asked.numbers { Numbers::Shown } else { Numbers::Masked };
    match found.first() {
        Some(delivery) => {
            if asked.numbers {
                tracing::info!(target: "audit", delivery = delivery.id, "numbers were shown");
            }
            Ok(Json(shown(delivery, numbers)))
        }
        None => Err(Refused(StatusCode::NOT_FOUND, "there is no such delivery".to_owned())),
    }
}

/// Every delivery on a line of its own, one page after the other.
async fn export(
    State(holdline): State<Arc<Holdline>>,
    Query(asked): Query<Listing>,
) -> Result<Response, Refused> {
    let filter = asked.filter.read()?;
    let reader = reader(&holdline).await?;
    tracing::info!(target: "audit", ?filter, "the spool was exported");
    let pages = futures::stream::try_unfold((reader, 0), move |(mut reader, after)| {
        let filter = filter.clone();
        async move {
            let page = reader.page(&filter, after).await?;
            let Some(last) = page.last() else { return Ok::<_, ToolFault>(None) };
            let after = last.place;
            let mut lines = Vec::new();
            for delivery in &page {
                // Writing to memory does not fail.
                let _ = serde_json::to_writer(&mut lines, &Carried::from(delivery));
                lines.push(b'\n');
            }
            Ok(Some((Bytes::from(lines), (reader, after))))
        }
    });
    let head = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((head, Body::from_stream(pages)).into_response())
}

async fn replay(State(holdline): State<Arc<Holdline>>, Json(asked): Json<Change>) -> Answer {
    if asked.dry_run {
        return dry_run(&holdline, &asked.filter.of_a_replay()).await;
    }
    let sent = spool(&holdline).send_again(&asked.filter).await?;
    tracing::info!(target: "audit", filter = ?asked.filter, sent, "callbacks are sent again");
    Ok(Json(json!({ "chosen": sent })))
}

async fn remove(State(holdline): State<Arc<Holdline>>, Json(asked): Json<Change>) -> Answer {
    if asked.dry_run {
        return dry_run(&holdline, &[asked.filter]).await;
    }
    let (chosen, up_to) = reader(&holdline).await?.count(&asked.filter).await?;
    if asked.confirm != Some(chosen) {
        let what = format!(
            "this would remove {chosen} for good: say \"confirm\": {chosen}; if more come meanwhile, \
             also \"up_to\": {up_to} in the filter"
        );
        return Err(Refused(StatusCode::CONFLICT, what));
    }
    // What comes from now on was not meant.
    let up_to = Some(asked.filter.up_to.map_or(up_to, |asked| asked.min(up_to)));
    let filter = Filter { up_to, ..asked.filter.clone() };
    let removed = spool(&holdline).remove(&filter).await?;
    tracing::warn!(target: "audit", filter = ?asked.filter, removed, "callbacks were removed for good");
    Ok(Json(json!({ "chosen": removed })))
}

/// How many would be changed, and the place of the last of them.
async fn dry_run(holdline: &Holdline, filters: &[Filter]) -> Answer {
    let mut reader = reader(holdline).await?;
    let (mut chosen, mut up_to) = (0, 0);
    for filter in filters {
        let (count, last) = reader.count(filter).await?;
        (chosen, up_to) = (chosen + count, up_to.max(last));
    }
    Ok(Json(json!({ "chosen": chosen, "up_to": up_to })))
}

async fn import(State(holdline): State<Arc<Holdline>>, body: Bytes) -> Answer {
    let mut deliveries = Vec::new();
    for (number, line) in body.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let read = serde_json::from_slice::<Carried>(line).map_err(|error| error.to_string());
        let delivery = read.and_then(Delivery::try_from).map_err(|what| {
            let what = format!("line {}: {what}; nothing was taken in", number + 1);
            Refused(StatusCode::BAD_REQUEST, what)
        })?;
        deliveries.push(delivery);
    }
    let given = deliveries.len() as u64;
    let new = spool(&holdline).import(deliveries).await?;
    tracing::info!(target: "audit", given, new, "callbacks of another spool were taken in");
    Ok(Json(json!({ "given": given, "new": new })))
}

// === impl FilterText ===

impl FilterText {
    fn read(self) -> Result<Filter, Refused> {
        let seconds = |name: &str, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let what = format!("{name}: {text:?} is not a number of seconds");
                Refused(StatusCode::BAD_REQUEST, what)
            }),
        };
        Ok(Filter {
            older_than: seconds("older_than", self.older_than)?,
            newer_than: seconds("newer_than", self.newer_than)?,
            id: self.id,
            state: self.state,
            row: self.row,
            call: self.call,
            account: self.account,
            up_to: None,
        })
    }
}

fn spool(holdline: &Holdline) -> &Spool {
    &holdline.relay.spool
}

async fn reader(holdline: &Holdline) -> Result<Reader, Refused> {
    Ok(spool(holdline).reader().await.map_err(ToolFault::from)?)
}
