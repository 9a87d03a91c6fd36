//! The two databases, and the few words in which they differ.
//!
//! Everything else is one text for both: ids are handed out by the store and not by the database,
//! flags are numbers, and nothing is returned by a statement that changes something.

use std::borrow::Cow;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

/// How long anything waits for the store.
pub const PATIENCE: Duration = Duration::from_millis(250);
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "origin", include_str!("../../migrations/0001_origin.sql"))];
/// MySQL's numbers for a deadlock and for a lock that could not be had in time
/// (dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html).
const MYSQL_BUSY: [u16; 2] = [1213, 1205];

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    place: Place,
    /// Which database it is.
    pub dialect: Dialect,
}

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a file.
    File(PathBuf),
    /// At a server, by URL; it may hold a password.
    Server(String),
}

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite, in a file.
    Sqlite,
    /// MySQL or MariaDB, a server.
    Mysql,
}

/// Why a text names no database.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no database: write a file's path, sqlite://PATH, or mysql://USER:PASSWORD@HOST/NAME"
)]
pub struct NotADatabase(String);

// === impl Database ===

/// A path, `sqlite://PATH` or `mysql://USER:PASSWORD@HOST:PORT/NAME`.
impl FromStr for Database {
    type Err = NotADatabase;

    fn from_str(text: &str) -> Result<Database, NotADatabase> {
        match text.split_once("://") {
            None if !text.is_empty() => Ok(Database::file(Path::new(text))),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Database::file(Path::new(path))),
            Some(("mysql" | "mariadb", rest)) if rest.contains('/') => {
                let place = Place::Server(format!("mysql://{rest}"));
                Ok(Database { place, dialect: Dialect::Mysql })
            }
            // The rest may hold a password.
            Some((scheme, _)) => Err(NotADatabase(format!("{scheme}://…"))),
            None => Err(NotADatabase(String::new())),
        }
    }
}

impl Database {
    /// The SQLite file at this path; made if it is not there.
    pub fn file(path: &Path) -> Database {
        Database { place: Place::File(path.to_owned()), dialect: Dialect::Sqlite }
    }

    /// Makes the file and its folder, if there is one and it is not there: for nobody else to read, because
    /// numbers, PINs and answers are in it. What the database puts beside it is as readable as the file.
    /// Gives the URL that the driver is to be given; it may hold a password.
    pub(super) fn make(&self) -> std::io::Result<String> {
        let file = match &self.place {
            Place::Server(url) => return Ok(url.clone()),
            Place::File(file) if file.exists() => return url_of(file),
            Place::File(file) => file,
        };
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
        url_of(file)
    }
}

/// The URL of a file that is there. The driver reads it as any URL, in which dots, marks and letters of
/// other scripts mean something else.
fn url_of(file: &Path) -> std::io::Result<String> {
    let mut url = String::from("sqlite://");
    for byte in file.canonicalize()?.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                url.push(char::from(*byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url.push_str("?mode=rw");
    Ok(url)
}

// === impl Dialect ===

impl Dialect {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Sqlite => "sqlite",
            Dialect::Mysql => "mysql",
        }
    }

    /// Begins a transaction that is going to write.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Mysql => "START TRANSACTION",
        }
    }

    /// Behind a SELECT of rows that are going to be changed. SQLite's transactions hold all rows.
    pub(crate) fn for_update(self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Mysql => " FOR UPDATE",
        }
    }

    /// The same, without waiting for rows that somebody else holds.
    pub(crate) fn skip_locked(self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Mysql => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// The beginning of an INSERT that does nothing where the row is there already.
    pub(crate) fn insert_new(self) -> &'static str {
        match self {
            Dialect::Sqlite => "INSERT OR IGNORE",
            Dialect::Mysql => "INSERT IGNORE",
        }
    }

    /// Deletes rows whose `time` is before a moment: those two are bound, the moment and how many rows at
    /// the most.
    pub(super) fn delete_some(self, table: &str, time: &str) -> String {
        match self {
            // It knows no limit of its own for what is deleted.
            Dialect::Sqlite => format!(
                "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {time} < ? LIMIT ?)"
            ),
            // And here the inner query would be asked anew for every row of the table.
            Dialect::Mysql => {
                format!("DELETE FROM {table} WHERE {time} < ? ORDER BY {time} LIMIT ?")
            }
        }
    }

    /// Writers that a process lets into the database at once. SQLite takes one; beside each other they
    /// would only wait there instead of here.
    pub(super) fn writers(self) -> usize {
        match self {
            Dialect::Sqlite => 1,
            Dialect::Mysql => 24,
        }
    }

    /// Connections of a process; readers have them beside the writers.
    pub(super) fn connections(self) -> u32 {
        match self {
            Dialect::Sqlite => 8,
            Dialect::Mysql => 32,
        }
    }

    /// Whether transactions wait for rows of each other, and one of two may be given up for that.
    pub(super) fn waits_for_rows(self) -> bool {
        self == Dialect::Mysql
    }

    /// Sets a new connection up.
    pub(super) async fn prepare(
        self,
        connection: &mut AnyConnection,
        patience: Duration,
    ) -> Result<(), sqlx::Error> {
        match self {
            Dialect::Sqlite => {
                // A crash of the process loses nothing; a crash of the machine may lose the last
                // moments, and never damages what was there before.
                let pragmas = format!(
                    "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                     PRAGMA foreign_keys = ON",
                    patience.as_millis()
                );
                connection.execute(AssertSqlSafe(pragmas)).await?;
            }
            Dialect::Mysql => {
                // A second is the least it knows. Read committed: who waited for a row sees what it is now.
                connection.execute("SET SESSION innodb_lock_wait_timeout = 1").await?;
                connection
                    .execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    .await?;
                // MariaDB alone ends the transaction of a frozen process by itself; with MySQL its rows
                // stay locked until the server gives the connection up.
                let _ = connection.execute("SET SESSION idle_transaction_timeout = 2").await;
            }
        }
        Ok(())
    }

    /// Whether an error says that somebody else was in the way and nothing was done.
    pub(super) fn is_busy(self, error: &dyn sqlx::error::DatabaseError) -> bool {
        match self {
            // SQLITE_BUSY and its extended codes share the lowest byte (sqlite.org/rescode.html).
            Dialect::Sqlite => error
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .is_some_and(|code| code & 0xff == 5),
            Dialect::Mysql => error
                .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                .is_some_and(|error| MYSQL_BUSY.contains(&error.number())),
        }
    }

    /// The migrations. Keys are compared byte by byte, which MySQL has to be told.
    pub(super) fn migrations(self) -> Migrator {
        let table = "\n) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;";
        let migrations = MIGRATIONS.map(|(version, what, sql)| {
            let sql = match self {
                Dialect::Sqlite => sql.to_owned(),
                Dialect::Mysql => sql.replace("\n);", table),
            };
            let sql = AssertSqlSafe(sql).into_sql_str();
            Migration::new(version, Cow::Borrowed(what), MigrationType::Simple, sql, false)
        });
        Migrator { migrations: Cow::Owned(migrations.into()), ..Migrator::DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn nobody_else_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        // However odd its name is, the file that is made is the one that is used.
        let name = folder.path().join("new/../new ä?%/s.sqlite");
        std::fs::create_dir(folder.path().join("new")).unwrap();
        let store = super::super::Store::open(&Database::file(&name)).await.unwrap();
        store.ping().await.unwrap();
        let file = folder.path().join("new ä?%/s.sqlite");
        for name in ["s.sqlite", "s.sqlite-wal", "s.sqlite-shm"] {
            let mode = std::fs::metadata(file.with_file_name(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
    }

    #[test]
    fn a_database_is_named_by_a_path_or_a_url() {
        let read = |text: &str| text.parse::<Database>().map(|database| database.dialect);
        assert_eq!(read("data/a.sqlite").unwrap(), Dialect::Sqlite);
        assert_eq!(read("sqlite://a.sqlite").unwrap(), Dialect::Sqlite);
        assert_eq!(read("mysql://root@127.0.0.1:3306/holdline").unwrap(), Dialect::Mysql);
        let refused = read("postgres://user:secret@host/x").unwrap_err().to_string();
        assert!(refused.contains("mysql://") && !refused.contains("secret"), "{refused}");
        assert!(read("").is_err());
    }
}
