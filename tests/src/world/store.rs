//! The store of a world's origin and monitor, looked at and changed behind their backs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, Connection as _, SqliteConnection};

use super::{DATABASE, PATIENCE, World};
use crate::program::{Said, run};

// === impl World ===

impl World {
    /// Changes the store of origin and monitor behind their backs.
    pub async fn sql(&self, statement: &str) -> anyhow::Result<()> {
        let mut connection = self.reach_store().await?;
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        Ok(())
    }

    /// One number from the store.
    pub async fn count(&self, select: &str) -> anyhow::Result<i64> {
        let mut connection = self.reach_store().await?;
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(select.to_owned()));
        Ok(query.fetch_one(&mut connection).await?)
    }

    /// Waits until that number of the store is this one.
    pub async fn until_count(&self, select: &str, number: i64) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let now = self.count(select).await?;
            if now == number {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE * 3 {
                bail!("{select} was not {number} in time, but {now}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first column of what is selected of the store, as text.
    pub async fn column(&self, select: &str) -> anyhow::Result<Vec<String>> {
        let mut connection = self.reach_store().await?;
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(select.to_owned()));
        Ok(query.fetch_all(&mut connection).await?)
    }

    /// Runs `holdline-origin admin` on the store; it must do what it is told. What it said.
    pub async fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.try_admin(arguments, "").await?;
        anyhow::ensure!(said.code == 0, "{arguments:?}: {said:?}");
        Ok(said.out.trim().to_owned())
    }

    /// Runs `holdline-origin admin` on the store, with this on its standard input.
    pub async fn try_admin(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let file = self.folder.path().join(DATABASE).display().to_string();
        let database = self.database.as_deref().unwrap_or(&file);
        let whole = [&["admin", "--database", database], arguments].concat();
        run("holdline-origin", &whole, &BTreeMap::new(), input).await
    }

    async fn reach_store(&self) -> anyhow::Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        let file = format!("sqlite://{}", self.folder.path().join(DATABASE).display());
        Ok(AnyConnection::connect(self.database.as_deref().unwrap_or(&file)).await?)
    }

    /// Holds the store's write lock until the connection is dropped.
    pub async fn lock_store(&self) -> anyhow::Result<SqliteConnection> {
        let mut connection = self.connect_store(PATIENCE).await?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(connection)
    }

    /// Whether somebody holds the store's write lock at this moment.
    pub async fn store_is_locked(&self) -> anyhow::Result<bool> {
        let mut connection = self.connect_store(Duration::ZERO).await?;
        Ok(sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.is_err())
    }

    async fn connect_store(&self, patience: Duration) -> anyhow::Result<SqliteConnection> {
        let options = SqliteConnectOptions::new()
            .filename(self.folder.path().join(DATABASE))
            .busy_timeout(patience);
        Ok(SqliteConnection::connect_with(&options).await?)
    }
}
