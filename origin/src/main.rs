//! The origin as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use holdline_origin::core::documents::Links;
use holdline_origin::store::Store;
use holdline_origin::web::{self, App};
use holdline_twilio::{AccountSid, Keyring, PublicUrl};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The call logic of a telephone canvassing service.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8081", env = "HOLDLINE_ORIGIN_LISTEN")]
    listen: SocketAddr,
    /// The SQLite database; made if it is not there.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_ORIGIN_DATABASE")]
    database: PathBuf,
    /// The edge's public URL: documents lead there, and requests are signed for it.
    #[arg(long, value_name = "URL", env = "HOLDLINE_ORIGIN_PUBLIC_URL")]
    public_url: String,
    /// Further URLs that requests may be signed for, such as this host's own.
    #[arg(long, value_name = "URL")]
    also_signed_for: Vec<String>,
    /// Which part to play.
    #[arg(long, value_enum, default_value = "origin")]
    role: Role,
    /// Adds a sample account to an empty database.
    #[arg(long)]
    sample: bool,
    /// The Twilio account.
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    account_sid: AccountSid,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// The application itself.
    Origin,
    /// The host that answers in its place.
    Monitor,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HOLDLINE_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline-origin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let role = match arguments.role {
        Role::Origin => "origin",
        Role::Monitor => "monitor",
    };
    let app = Arc::new(assemble(arguments, role).await?);
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    say(&format!("{role}: http://{}", listener.local_addr()?));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let keeper = app.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            if let Err(error) = keeper.store.forget_old_deliveries().await {
                tracing::warn!(%error, "old deliveries were not forgotten");
            }
        }
    });
    axum::serve(listener, web::router(app))
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await?;
    Ok(())
}

async fn assemble(arguments: &Arguments, role: &'static str) -> anyhow::Result<App> {
    // From the environment only, so that it shows in no process list.
    let token = std::env::var("TWILIO_AUTH_TOKEN")
        .context("set TWILIO_AUTH_TOKEN to the account's auth token")?;
    let mut keys = Keyring::default();
    keys.add_token(arguments.account_sid, &token.into());
    let signed_for = std::iter::once(&arguments.public_url).chain(&arguments.also_signed_for);
    let public_urls = signed_for
        .map(|url| PublicUrl::parse(url).with_context(|| format!("{url:?} is no public URL")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let store = Store::open(&arguments.database)
        .await
        .with_context(|| format!("cannot open the database {}", arguments.database.display()))?;
    if arguments.sample && store.add_sample().await? {
        tracing::info!("added the sample account");
    }
    Ok(App {
        store,
        keys,
        public_urls,
        links: Links::new(&arguments.public_url),
        role,
        inspect_token: std::env::var("HOLDLINE_ORIGIN_INSPECT_TOKEN").ok().map(Into::into),
    })
}

#[expect(clippy::print_stdout, reason = "the announcement is the program's output")]
fn say(line: &str) {
    println!("{line}");
}
