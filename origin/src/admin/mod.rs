//! `holdline-origin admin`: to run a campaign without touching the database.
//!
//! It works on the database itself, whether the origin runs or not. What is added is told by its id, on
//! a line of its own, so that the next command can be given it. Whatever is wrong with a file is said at
//! once, with its lines, and nothing of it is taken.

mod arguments;
mod phone;

mod block;
mod book;
mod import;
mod results;
mod script;

use std::io::Write as _;
use std::time::Duration;

use arguments::{AdminCommand, Block, List, Numbers, Recording, Script};

use crate::store::{Database, Store, StoreError};

pub use arguments::AdminArguments;
pub use phone::phone;

/// How long it waits for a database that a busy origin works on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does something again that came into the origin's way.
macro_rules! patiently {
    ($work:expr) => {{
        let mut tries = 1;
        loop {
            match $work {
                Err(error) if tries < 40 && crate::admin::passes(&error) => tries += 1,
                done => break done,
            }
        }
    }};
}
use patiently;

/// Whether an error is one that passes.
fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StoreError>().is_some_and(StoreError::passes)
}

/// Runs it.
pub async fn run(arguments: AdminArguments) -> anyhow::Result<()> {
    let Some(database) = arguments.database else {
        anyhow::bail!("say which database: --database, or HOLDLINE_ORIGIN_DATABASE");
    };
    let database: Database = database.parse()?;
    let store = Store::open_with(&database, PATIENCE).await?;
    match arguments.command {
        AdminCommand::Account(command) => book::account(&store, command).await,
        AdminCommand::Script(Script::Import { account, file }) => {
            script::import(&store, account, &file).await
        }
        AdminCommand::Script(Script::List) => script::list(&store).await,
        AdminCommand::Recording(Recording::Add { account, name, url }) => {
            book::add_recording(&store, account, &name, &url).await
        }
        AdminCommand::Campaign(command) => book::campaign(&store, command).await,
        AdminCommand::Caller(command) => book::caller(&store, command).await,
        AdminCommand::List(List::Import { campaign, file, skip_faults }) => {
            import::people(&store, campaign, &file, skip_faults).await
        }
        AdminCommand::List(List::Export { campaign, out }) => {
            results::people(&store, campaign, &out).await
        }
        AdminCommand::Block(Block::Add(Numbers { account, numbers, campaign })) => {
            block::numbers(&store, account, campaign, &numbers, true).await
        }
        AdminCommand::Block(Block::Remove(Numbers { account, numbers, campaign })) => {
            block::numbers(&store, account, campaign, &numbers, false).await
        }
        AdminCommand::Block(Block::Import { account, file, campaign }) => {
            block::file(&store, account, campaign, &file).await
        }
        AdminCommand::Results { campaign, out } => results::calls(&store, campaign, &out).await,
    }
}

/// Writes a line to standard output.
fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
