//! The file of the spool: its schema, whose it is, whether it is sound, and who may replay it.
//!
//! A file that is damaged is set aside under another name and reported, never written over: what can
//! still be read of it can be taken in later. A file of a newer version is refused, because this one
//! would not know what it means; older ones are brought up to date. Changes of the schema only add, so
//! that two versions can write to the same file during an upgrade.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};

use super::delivery::unix_ms;

/// The database's name in its folder.
const FILE: &str = "spool.sqlite";
/// The lock's.
const LOCK: &str = "spool.lock";
/// Marks the file as ours ("Hold").
const APPLICATION_ID: i64 = 0x486f_6c64;
/// How long a writer waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// One change of the schema after the other; the version of a file is how many were made.
const MIGRATIONS: [&str; 2] = [
    // A delivery's place is its order of arrival. `state` is 0 while it waits, 1 when it was delivered, 2
    // when it is dead.
    "CREATE TABLE deliveries (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL,
        ordered_by TEXT NOT NULL,
        row TEXT NOT NULL,
        account TEXT,
        call TEXT,
        method TEXT NOT NULL,
        target TEXT NOT NULL,
        fields BLOB NOT NULL,
        body BLOB NOT NULL,
        signature BLOB,
        client TEXT,
        due_ms INTEGER NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        setbacks INTEGER NOT NULL DEFAULT 0,
        last_outcome TEXT,
        ended_ms INTEGER,
        reason TEXT
    );
    CREATE INDEX waiting_by_due ON deliveries (due_ms, place) WHERE state = 0;
    CREATE INDEX waiting_in_order ON deliveries (ordered_by, place) WHERE state = 0;
    CREATE INDEX ended ON deliveries (state, ended_ms) WHERE state <> 0;",
    // A kind of 0 is what Twilio has sent, 1 a notice of our own.
    "ALTER TABLE deliveries ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deliveries ADD COLUMN tried_ms INTEGER;
    ALTER TABLE deliveries ADD COLUMN revived_ms INTEGER;",
];

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// A newer version has written it.
    #[error(
        "{} was written by a newer holdline (its schema is {found}, this one knows {}): \
         start that version again, or let it deliver what waits and name another folder",
        file.display(), MIGRATIONS.len()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its schema's version.
        found: i64,
    },
    /// It belongs to another program.
    #[error("{} is another program's database: name another folder", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// It is damaged.
    #[error("{} is damaged: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// In what way.
        what: String,
    },
    /// The folder or a file in it cannot be used.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database cannot be used.
    #[error("{}: {error}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        error: sqlx::Error,
    },
}

/// The right to replay; one process has it at a time.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

/// Where a spool is.
#[derive(Debug, Clone)]
pub struct Location {
    folder: PathBuf,
}

// === impl Location ===

impl Location {
    /// A spool in this folder, which is made when it is opened.
    pub fn new(folder: PathBuf) -> Location {
        Location { folder }
    }

    /// The database.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Takes the right to replay, if nobody has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        self.make_folder()?;
        let file =
            private().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses what this version must not touch. Quick, however large the file is.
    pub async fn look(&self) -> Result<(), OpenFault> {
        if !self.file().exists() {
            return Ok(());
        }
        match self.connect_to_read().await {
            Ok(mut connection) => match self.version(&mut connection).await {
                Ok(_) => Ok(()),
                Err(fault @ (OpenFault::Newer { .. } | OpenFault::Foreign { .. })) => Err(fault),
                // What is damaged is found again, and dealt with, when it is opened.
                Err(_) => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    /// Opens the database, sound and up to date. One that is damaged is set aside by whoever has the
    /// lock, and its new name given back.
    pub async fn open(
        &self,
        lock: Option<&Lock>,
    ) -> Result<(SqliteConnection, Option<PathBuf>), OpenFault> {
        self.make_folder().map_err(|error| self.io(error))?;
        match self.open_as_it_is().await {
            Err(fault @ OpenFault::Damaged { .. }) if lock.is_some() => {
                tracing::error!(%fault, "the spool is set aside");
                let aside = self.set_aside().map_err(|error| self.io(error))?;
                Ok((self.open_as_it_is().await?, Some(aside)))
            }
            opened => Ok((opened?, None)),
        }
    }

    /// Another connection to a database that is open.
    pub async fn connect(&self) -> Result<SqliteConnection, OpenFault> {
        let options = SqliteConnectOptions::new()
            .filename(self.file())
            .create_if_missing(false)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is deleted holds telephone numbers.
            .pragma("secure_delete", "ON")
            // No commit waits for the log to be copied; that is done beside.
            .pragma("wal_autocheckpoint", "0")
            .busy_timeout(BUSY);
        SqliteConnection::connect_with(&options).await.map_err(|error| self.fault(error))
    }

    /// A connection that changes nothing.
    pub async fn connect_to_read(&self) -> Result<SqliteConnection, OpenFault> {
        let options = reading(&self.file());
        SqliteConnection::connect_with(&options).await.map_err(|error| self.fault(error))
    }

    /// A connection that changes nothing, to a spool's file under whatever name, damaged or not.
    pub async fn connect_to(file: &Path) -> Result<SqliteConnection, OpenFault> {
        let options = reading(file)
            // Without this a file that lacks its end cannot be read at all.
            .pragma("writable_schema", "ON");
        SqliteConnection::connect_with(&options).await.map_err(|error| fault_of(file, error))
    }

    async fn open_as_it_is(&self) -> Result<SqliteConnection, OpenFault> {
        // Made by us, so that nobody else can read it even for a moment; its logs get the same mode.
        let file = private().create(true).truncate(false).write(true).open(self.file());
        drop(file.map_err(|error| self.io(error))?);
        // What is damaged is not written to, not even by whoever finds that out.
        let mut reader = self.connect_to_read().await?;
        let sound = self.examine(&mut reader).await;
        // What was only read can be closed at any time.
        let _ = reader.close().await;
        sound?;
        let mut connection = self.connect().await?;
        self.migrate(&mut connection).await?;
        Ok(connection)
    }

    async fn examine(&self, reader: &mut SqliteConnection) -> Result<(), OpenFault> {
        self.version(reader).await?;
        self.check(reader).await
    }

    /// The version of a file that is ours, or that nobody has written to yet.
    async fn version(&self, connection: &mut SqliteConnection) -> Result<i64, OpenFault> {
        let fault = |error| self.fault(error);
        let query = "SELECT (SELECT user_version FROM pragma_user_version), \
                     (SELECT application_id FROM pragma_application_id), \
                     (SELECT COUNT(*) FROM sqlite_schema)";
        let (version, application, tables): (i64, i64, i64) =
            sqlx::query_as(query).fetch_one(connection).await.map_err(fault)?;
        if application != APPLICATION_ID && (tables > 0 || version > 0) {
            return Err(OpenFault::Foreign { file: self.file() });
        }
        if version > MIGRATIONS.len() as i64 {
            return Err(OpenFault::Newer { file: self.file(), found: version });
        }
        Ok(version)
    }

    async fn check(&self, connection: &mut SqliteConnection) -> Result<(), OpenFault> {
        let query = sqlx::query_scalar("PRAGMA quick_check(1)");
        let verdict: String =
            query.fetch_one(connection).await.map_err(|error| self.fault(error))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(OpenFault::Damaged { file: self.file(), what: verdict })
    }

    /// Brings the schema up to date, one process at a time.
    async fn migrate(&self, connection: &mut SqliteConnection) -> Result<(), OpenFault> {
        let mut run = async || {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let query = sqlx::query_scalar("SELECT user_version FROM pragma_user_version");
            let version: i64 = query.fetch_one(&mut *transaction).await?;
            let done = usize::try_from(version).unwrap_or(0);
            for migration in MIGRATIONS.iter().skip(done) {
                sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
            }
            if done < MIGRATIONS.len() {
                let marks = format!(
                    "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
                    MIGRATIONS.len()
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(marks)).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        run().await.map_err(|error| self.fault(error))
    }

    /// Gives the database and its logs a name that nothing else has.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("{FILE}.damaged-{}", unix_ms()));
        for suffix in ["-wal", "-shm", ""] {
            let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            match std::fs::rename(with(&self.file()), with(&aside)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(aside)
    }

    fn make_folder(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn io(&self, error: io::Error) -> OpenFault {
        OpenFault::Io { file: self.folder.clone(), error }
    }

    pub(super) fn fault(&self, error: sqlx::Error) -> OpenFault {
        fault_of(&self.file(), error)
    }
}

fn reading(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(BUSY)
}

fn fault_of(file: &Path, error: sqlx::Error) -> OpenFault {
    let file = file.to_owned();
    if is_damage(&error) {
        OpenFault::Damaged { file, what: error.to_string() }
    } else {
        OpenFault::Database { file, error }
    }
}

/// Writes something that changes nothing, to see whether that can be done.
pub(super) async fn touch(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mark = format!("PRAGMA application_id = {APPLICATION_ID}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(connection).await?;
    Ok(())
}

/// Whether an error says that the file is no sound database (sqlite.org/rescode.html: CORRUPT, NOTADB).
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Opens files that nobody else may read.
fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Filter;
    use super::super::delivery::{Delivery, Kind, State};
    use super::super::store;
    use super::*;

    fn delivery(n: i64) -> Delivery {
        Delivery {
            place: n,
            kind: Kind::Callback,
            id: format!("d{n}"),
            order: format!("CA{}", n % 3),
            row: "call_ended".into(),
            account: None,
            call: None,
            method: "POST".into(),
            target: "/calls/7/call_ended".into(),
            fields: b"accept: */*\r\n".to_vec(),
            body: Bytes::from(vec![b'x'; 700]),
            signature: None,
            client: None,
            state: State::Waiting,
            due_ms: n,
            tries: 0,
            setbacks: 0,
            last_outcome: None,
            tried_ms: None,
            revived_ms: None,
        }
    }

    /// A folder for what is written over and over: in memory, where there is such a place.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    async fn places(connection: &mut SqliteConnection) -> Vec<i64> {
        let all = store::list(connection, &Filter::default(), 0, 1000).await.unwrap();
        all.iter().map(|delivery| delivery.place).collect()
    }

    #[tokio::test]
    async fn only_one_at_a_time_has_the_lock() {
        let folder = folder();
        let location = Location::new(folder.path().join("spool"));
        let lock = location.lock().unwrap().unwrap();
        assert!(location.lock().unwrap().is_none());
        drop(lock);
        assert!(location.lock().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_refused_and_not_touched() {
        let folder = folder();
        let location = Location::new(folder.path().to_owned());
        let (mut connection, _) = location.open(None).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 77").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let lock = location.lock().unwrap();
        for fault in
            [location.look().await.unwrap_err(), location.open(lock.as_ref()).await.unwrap_err()]
        {
            let said = fault.to_string();
            assert!(said.contains("written by a newer holdline (its schema is 77"), "{said}");
            assert!(said.contains("start that version again"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_file_of_every_earlier_version_is_brought_up_to_date() {
        for version in 1..MIGRATIONS.len() {
            let folder = folder();
            let location = Location::new(folder.path().to_owned());
            let mut earlier = location.connect_or_make().await;
            for migration in &MIGRATIONS[..version] {
                sqlx::raw_sql(*migration).execute(&mut earlier).await.unwrap();
            }
            let marks = format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};
                 INSERT INTO deliveries (place, id, size, ordered_by, row, method, target, fields, body, due_ms)
                 VALUES (5, 'd', 1, 'CA1', 'call_ended', 'POST', '/x', x'', x'41', 0)"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(marks)).execute(&mut earlier).await.unwrap();
            let (mut connection, aside) = location.open(None).await.unwrap();
            assert_eq!(aside, None);
            let kept = store::list(&mut connection, &Filter::default(), 0, 9).await.unwrap();
            assert_eq!(
                (kept[0].place, kept[0].kind, &kept[0].body[..]),
                (5, Kind::Callback, &b"A"[..])
            );
            // Whoever still has the earlier version open goes on writing.
            let insert = "INSERT INTO deliveries (place, id, size, ordered_by, row, method, target, fields, body, due_ms)
                 VALUES (6, 'e', 1, 'CA1', 'call_ended', 'POST', '/x', x'', x'', 0)";
            sqlx::raw_sql(insert).execute(&mut earlier).await.unwrap();
            assert_eq!(places(&mut connection).await, [5, 6]);
        }
    }

    impl Location {
        /// A connection to a file that need not be there.
        async fn connect_or_make(&self) -> SqliteConnection {
            std::fs::File::create(self.file()).unwrap();
            self.connect().await.unwrap()
        }
    }

    #[tokio::test]
    async fn another_programs_database_is_refused() {
        let folder = folder();
        let location = Location::new(folder.path().to_owned());
        let options = SqliteConnectOptions::new().filename(location.file()).create_if_missing(true);
        let mut theirs = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut theirs).await.unwrap();
        theirs.close().await.unwrap();
        let lock = location.lock().unwrap();
        for fault in
            [location.look().await.unwrap_err(), location.open(lock.as_ref()).await.unwrap_err()]
        {
            assert!(fault.to_string().contains("another program's database"), "{fault}");
        }
    }

    #[tokio::test]
    async fn what_is_no_database_is_set_aside_by_whoever_has_the_lock() {
        let folder = folder();
        let location = Location::new(folder.path().to_owned());
        std::fs::write(location.file(), "no database, and longer than a header of one would have to be, at any rate longer than a hundred bytes").unwrap();
        assert!(matches!(location.open(None).await, Err(OpenFault::Damaged { .. })));
        let lock = location.lock().unwrap();
        let (mut connection, aside) = location.open(lock.as_ref()).await.unwrap();
        assert!(std::fs::read_to_string(aside.unwrap()).unwrap().starts_with("no database"));
        assert_eq!(places(&mut connection).await, [0; 0]);
    }

    /// Cuts the log, or the database, at every byte of its end: it opens with what came before, or it is
    /// set aside as it is.
    async fn cut(file: &Path, of: &Location, first: usize, expect: &[i64]) -> (usize, usize) {
        let whole: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(file.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("spool.sqlite-shm") && !path.ends_with(LOCK))
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        let length = std::fs::metadata(file).unwrap().len() as usize;
        let (mut opened, mut set_aside) = (0, 0);
        for end in length - first..length {
            let folder = folder();
            for (path, bytes) in &whole {
                let kept = if path == file { &bytes[..end] } else { &bytes[..] };
                std::fs::write(folder.path().join(path.file_name().unwrap()), kept).unwrap();
            }
            let location = Location::new(folder.path().to_owned());
            let before = std::fs::read(location.file()).unwrap();
            let lock = location.lock().unwrap();
            let (mut connection, aside) = location.open(lock.as_ref()).await.unwrap();
            let found = places(&mut connection).await;
            if let Some(aside) = aside {
                assert!(std::fs::read(aside).unwrap() == before, "cut at {end}: it was changed");
                assert_eq!(found, [0; 0]);
                set_aside += 1;
            } else {
                assert!(expect.starts_with(&found), "cut at {end}: {found:?}");
                opened += 1;
            }
            // It can be written to either way.
            assert!(store::insert(&mut connection, &delivery(999)).await.unwrap());
            connection.close().await.unwrap();
        }
        assert_eq!(of.file().parent(), file.parent());
        (opened, set_aside)
    }

    #[tokio::test]
    async fn a_file_that_was_cut_anywhere_opens_or_is_set_aside() {
        let folder = folder();
        let location = Location::new(folder.path().to_owned());
        let (mut connection, _) = location.open(None).await.unwrap();
        let all: Vec<i64> = (1..=12).collect();
        for n in &all {
            store::insert(&mut connection, &delivery(*n)).await.unwrap();
        }
        let log = PathBuf::from(format!("{}-wal", location.file().display()));
        // The log's end is a frame of a header and a page.
        let (opened, set_aside) = cut(&log, &location, 4096 + 24, &all).await;
        assert_eq!((opened, set_aside), (4096 + 24, 0), "a log that ends early is no damage");
        connection.close().await.unwrap();
        let (opened, set_aside) = cut(&location.file(), &location, 4096, &all).await;
        assert_eq!(opened + set_aside, 4096);
        assert!(set_aside > 0, "a database that lacks its last page is damaged");
    }
}
