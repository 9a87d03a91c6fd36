//! Lists of people.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Row as _};

use super::{book, patiently, phone, say};
use crate::core::state::Place;
use crate::store::{Store, StoreError, Writing, breathe, queue};

/// Faults that are shown of one file.
pub(super) const MOST_FAULTS: usize = 50;
/// Households that are written at once: few, because callers wait for the store as well.
const BATCH: usize = 50;
/// As long as the columns of the store.
const LONGEST_NAME: usize = 200;
const LONGEST_FIELDS: usize = 4000;

/// A person of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    custom_id: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    /// Everything else, as JSON.
    fields: String,
}

/// What a list comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    households: usize,
    people: usize,
    known: usize,
    blocked: usize,
}

pub(super) async fn people(
    store: &Store,
    campaign: i64,
    path: &Path,
    skip_faults: bool,
) -> anyhow::Result<()> {
    let (households, faults) = read(open(path)?)?;
    if !faults.is_empty() {
        let shown: Vec<&str> = faults.iter().take(MOST_FAULTS).map(String::as_str).collect();
        let list = shown.join("\n  ");
        if !skip_faults {
            bail!(
                "{}: {} lines cannot be read, and nothing was taken (--skip-faults takes the others):\n  {list}",
                path.display(),
                faults.len()
            );
        }
        eprintln!("{} lines, with what belongs to them, were left out:\n  {list}", faults.len());
    }
    let mut tally = Tally::default();
    let mut sequence = next_sequence(store, campaign).await?;
    let rows = |batch: &[(String, Vec<Person>)]| -> usize {
        batch.iter().map(|(_, people)| 1 + people.len()).sum()
    };
    let all = i64::try_from(rows(&households))?;
    let mut ids = patiently!(store.id_block(all).await.map_err(Into::into))?;
    for batch in households.chunks(BATCH) {
        let begun = Instant::now();
        let own = ids.start..ids.start + i64::try_from(rows(batch))?;
        ids.start = own.end;
        let done =
            patiently!(import_batch(store, campaign, batch, own.clone(), sequence, tally).await);
        (sequence, tally) = done.with_context(|| {
            format!(
                "{} numbers were taken before; the same list again takes the rest",
                tally.households
            )
        })?;
        breathe(begun).await;
    }
    say(&format!(
        "{} numbers with {} people added, {} people known before, {} numbers blocked",
        tally.households, tally.people, tally.known, tally.blocked
    ))
}

/// Reads a list: households in the order in which their numbers first come, and what is wrong.
#[expect(clippy::type_complexity, reason = "two lists, used once")]
fn read(file: impl Read) -> anyhow::Result<(Vec<(String, Vec<Person>)>, Vec<String>)> {
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(file);
    let heading: Vec<String> = reader
        .headers()?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_ascii_lowercase().replace(' ', "_"))
        .collect();
    // Spreadsheets write columns that nobody has filled in.
    for (n, name) in heading.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        if heading[..n].contains(name) {
            bail!("two columns are named {name}");
        }
    }
    if !heading.iter().any(|name| name == "phone") {
        bail!(
            "the first line must name the columns, and one of them be phone; it names {}",
            heading.join(", ")
        );
    }
    let (mut places, mut faults) = (HashMap::new(), Vec::new());
    let mut households: Vec<(String, Vec<Person>)> = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        match person(&heading, &record) {
            Err(fault) => faults.push(format!("line {line}: {fault}")),
            Ok((number, person)) => {
                let place = *places.entry(number.clone()).or_insert(households.len());
                if place == households.len() {
                    households.push((number, Vec::new()));
                }
                if let Some((_, people)) = households.get_mut(place)
                    && !people.contains(&person)
                {
                    people.push(person);
                }
            }
        }
    }
    Ok((households, faults))
}

fn person(heading: &[String], record: &csv::StringRecord) -> Result<(String, Person), String> {
    let mut fields = BTreeMap::new();
    for (name, value) in heading.iter().zip(record.iter()).filter(|(_, value)| !value.is_empty()) {
        if name.is_empty() {
            return Err(format!("{value:?} is in a column that has no name"));
        }
        fields.insert(name.as_str(), value);
    }
    swallowed_nobody(record)?;
    if record.len() > heading.len() {
        return Err(format!("{} columns, {} are named", record.len(), heading.len()));
    }
    let number = phone(fields.remove("phone").ok_or("there is no phone")?)?;
    let mut name = |column: &str| match fields.remove(column) {
        Some(text) if text.chars().count() > LONGEST_NAME => {
            Err(format!("{column} has more than {LONGEST_NAME} characters"))
        }
        text => Ok(text.map(str::to_owned)),
    };
    let (custom_id, first_name, last_name) =
        (name("custom_id")?, name("first_name")?, name("last_name")?);
    let fields = serde_json::to_string(&fields).map_err(|error| error.to_string())?;
    if fields.chars().count() > LONGEST_FIELDS {
        return Err(format!("the other columns have more than {LONGEST_FIELDS} characters"));
    }
    Ok((number, Person { custom_id, first_name, last_name, fields }))
}

/// Whether a record has swallowed others: a quotation mark that is not closed makes one field of all that
/// follows, telephone numbers among it.
pub(super) fn swallowed_nobody(record: &csv::StringRecord) -> Result<(), String> {
    let later = |field: &str| field.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<String> = record.iter().flat_map(later).collect();
    let has_number = |line: &String| line.split(',').any(|cell| phone(cell).is_ok());
    if !lines.iter().any(has_number) {
        return Ok(());
    }
    let lines = lines.len() + 1;
    Err(format!(
        "goes on over {lines} lines with telephone numbers in them: a quotation mark is not closed there"
    ))
}

async fn next_sequence(store: &Store, campaign: i64) -> anyhow::Result<i64> {
    let mut writing = store.begin().await?;
    book::is_there(&mut writing, "campaigns", campaign).await?;
    let query = "SELECT COALESCE(MAX(sequence), 0) + 1 FROM households WHERE campaign_id = ?";
    let row = sqlx::query(query).bind(campaign).fetch_one(writing.connection()).await?;
    Ok(row.try_get(0)?)
}

async fn import_batch(
    store: &Store,
    campaign: i64,
    batch: &[(String, Vec<Person>)],
    mut ids: Range<i64>,
    mut sequence: i64,
    mut tally: Tally,
) -> anyhow::Result<(i64, Tally)> {
    let mut writing = store.begin().await?;
    for (number, people) in batch {
        let known = household(&mut writing, campaign, number).await?;
        let is_new = known.is_none();
        let (id, place) = match known {
            Some(known) => known,
            None => {
                let id = ids.next().context("there are no ids left")?;
                let blocked = queue::is_blocked(&mut writing, campaign, number).await?;
                let place = add_household(&mut writing, id, campaign, number, sequence, blocked);
                let place = place.await?;
                sequence += 1;
                tally.households += 1;
                tally.blocked += usize::from(blocked);
                (id, place)
            }
        };
        let mut added = 0;
        for (n, person) in (0i64..).zip(people) {
            if !is_new && is_known(&mut writing, id, person).await? {
                tally.known += 1;
                continue;
            }
            let lead = ids.next().context("there are no ids left")?;
            add_person(&mut writing, lead, id, sequence * 1000 + n, person).await?;
            added += 1;
        }
        tally.people += added;
        if added > 0 && place == Place::Completed {
            // Its time of the last call stays, and with it the time until it may be called again.
            let update = "UPDATE households SET place = CASE WHEN blocked > 0 THEN 'blocked' ELSE 'bin' END \
                          WHERE id = ? AND place = 'completed'";
            let query = sqlx::query(update).bind(id);
            query.execute(writing.connection()).await.map_err(StoreError::from)?;
        }
    }
    writing.commit().await?;
    Ok((sequence, tally))
}

async fn household(
    writing: &mut Writing<'_>,
    campaign: i64,
    number: &str,
) -> Result<Option<(i64, Place)>, StoreError> {
    // Held, so that a call that is done with meanwhile knows whoever is added.
    let lock = writing.dialect.for_update();
    let query =
        format!("SELECT id, place FROM households WHERE campaign_id = ? AND phone = ?{lock}");
    let query = sqlx::query(AssertSqlSafe(query)).bind(campaign).bind(number.to_owned());
    let Some(row) = query.fetch_optional(writing.connection()).await? else { return Ok(None) };
    let place: String = row.try_get("place")?;
    Ok(Some((row.try_get("id")?, Place::named(&place).unwrap_or(Place::Blocked))))
}

async fn add_household(
    writing: &mut Writing<'_>,
    id: i64,
    campaign: i64,
    number: &str,
    sequence: i64,
    blocked: bool,
) -> Result<Place, StoreError> {
    let place = if blocked { Place::Blocked } else { Place::Available };
    let insert = "INSERT INTO households (id, campaign_id, phone, sequence, place, score, blocked) \
                  VALUES (?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(insert)
        .bind(id)
        .bind(campaign)
        .bind(number.to_owned())
        .bind(sequence)
        .bind(place.name())
        .bind(sequence)
        .bind(if blocked { queue::DNC } else { 0 })
        .execute(writing.connection())
        .await?;
    Ok(place)
}

/// Whether a household has that person: by the team's own number, else by the name.
async fn is_known(
    writing: &mut Writing<'_>,
    household: i64,
    person: &Person,
) -> Result<bool, StoreError> {
    let (column, query) = match &person.custom_id {
        Some(id) => (vec![id.clone()], "custom_id = ?"),
        None => (
            vec![
                person.first_name.clone().unwrap_or_default(),
                person.last_name.clone().unwrap_or_default(),
            ],
            "custom_id IS NULL AND COALESCE(first_name, '') = ? AND COALESCE(last_name, '') = ?",
        ),
    };
    let query = format!("SELECT COUNT(*) FROM leads WHERE household_id = ? AND {query}");
    let mut query = sqlx::query(AssertSqlSafe(query)).bind(household);
    for value in column {
        query = query.bind(value);
    }
    Ok(query.fetch_one(writing.connection()).await?.try_get::<i64, _>(0)? > 0)
}

async fn add_person(
    writing: &mut Writing<'_>,
    id: i64,
    household: i64,
    sequence: i64,
    person: &Person,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO leads (id, household_id, sequence, custom_id, first_name, last_name, fields) \
                  VALUES (?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(insert)
        .bind(id)
        .bind(household)
        .bind(sequence)
        .bind(person.custom_id.clone())
        .bind(person.first_name.clone())
        .bind(person.last_name.clone())
        .bind(person.fields.clone())
        .execute(writing.connection())
        .await?;
    Ok(())
}

pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(std::io::BufReader::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_one_number_is_one_household() {
        let (households, faults) = read(
            "\u{feff}First Name,Phone,last_name,party\nAnn,(500) 555-0101,Lee,blue\n\
             Bo,+15005550102,,\n\"Cy\",500-555-0101,Lee,\nCy,5005550101,Lee,\n"
                .as_bytes(),
        )
        .unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        let numbers: Vec<_> =
            households.iter().map(|(number, people)| (number.as_str(), people.len())).collect();
        assert_eq!(numbers, [("5005550101", 2), ("5005550102", 1)]);
        assert_eq!(households[0].1[0].fields, "{\"party\":\"blue\"}");
    }

    #[test]
    fn every_line_that_cannot_be_read_is_named() {
        let (households, faults) =
            read("phone,name\n5005550101,a\n,b\n12,c\n5005550102,d,e\n".as_bytes()).unwrap();
        assert_eq!(households.len(), 1);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("line 3: ") && faults[1].contains("2 digits"), "{faults:?}");
        // A quotation mark that is not closed takes nobody along unsaid.
        let (households, faults) =
            read("phone,name\n5005550101,a\n5005550102,\"b\n5005550103,c\n".as_bytes()).unwrap();
        assert_eq!((households.len(), faults.len()), (1, 1));
        assert!(faults[0].starts_with("line 3: goes on over "), "{faults:?}");
        // A field of several lines is one.
        let (households, faults) =
            read("phone,notes\n5005550101,\"at the back\nring twice\"\n".as_bytes()).unwrap();
        assert_eq!((households.len(), faults.len()), (1, 0), "{faults:?}");
        // Columns without a name may be there, with nothing in them.
        let (households, faults) =
            read("phone,name,,\n5005550101,a,,\n5005550102,b,c,\n".as_bytes()).unwrap();
        assert_eq!((households.len(), faults.len()), (1, 1), "{faults:?}");
        assert!(read("number,name\n1,2\n".as_bytes()).unwrap_err().to_string().contains("phone"));
    }
}
