//! The origin as a program.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use holdline_origin::admin::AdminArguments;
use holdline_origin::core::links::Links;
use holdline_origin::metrics::Metrics;
use holdline_origin::store::{Database, Store};
use holdline_origin::twilio::{Detection, TWILIO, Twilio};
use holdline_origin::web::{self, App};
use holdline_origin::work::Worker;
use holdline_twilio::{AccountSid, Keyring, PublicUrl};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use url::Url;

/// The call logic of a telephone canvassing service.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
holdline-origin admin --help: accounts, callers, campaigns, scripts, lists and results.

The account's auth token is read from TWILIO_AUTH_TOKEN; the token of the inspection endpoints, if there
are to be any, from HOLDLINE_ORIGIN_INSPECT_TOKEN."
)]
struct Serve {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8081", env = "HOLDLINE_ORIGIN_LISTEN")]
    listen: SocketAddr,
    /// The database: an SQLite file, made if it is not there, or mysql://USER:PASSWORD@HOST/NAME.
    #[arg(long, value_name = "FILE|URL", env = "HOLDLINE_ORIGIN_DATABASE", hide_env_values = true)]
    database: String,
    /// The edge's public URL: documents lead there, and requests are signed for it.
    #[arg(long, value_name = "URL", env = "HOLDLINE_ORIGIN_PUBLIC_URL")]
    public_url: String,
    /// Further URLs that requests may be signed for, such as this host's own.
    #[arg(long, value_name = "URL")]
    also_signed_for: Vec<String>,
    /// Where Twilio asks when a document for a lead cannot be had; a host whose way does not lead through
    /// the same edge. Without it the public URL.
    #[arg(long, value_name = "URL", env = "HOLDLINE_ORIGIN_FALLBACK_URL")]
    fallback_url: Option<String>,
    /// Which part to play.
    #[arg(long, value_enum, default_value = "origin")]
    role: Role,
    /// Adds a sample account to an empty database.
    #[arg(long)]
    sample: bool,
    /// The Twilio account.
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    account_sid: AccountSid,
    /// Twilio's REST API.
    #[arg(long, value_name = "URL", default_value = TWILIO, env = "HOLDLINE_ORIGIN_TWILIO_URL")]
    twilio_url: Url,
    /// Requests to Twilio's REST API at once.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    twilio_at_once: u16,
    /// How Twilio is asked to tell machines from people.
    #[arg(long, value_enum, default_value = "modern")]
    machine_detection: Detection,
    /// Does not do what Twilio asks for again because a first request never arrived.
    #[arg(long)]
    ignore_fallbacks: bool,
    /// For how many seconds longer than it should take something may stay unreported before it is looked up
    /// at Twilio.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// How much faster than in reality telephones ring: for rehearsals with a simulator that does so.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// The application itself.
    Origin,
    /// The host that answers in its place.
    Monitor,
}

fn main() -> ExitCode {
    // What serving needs from the environment says nothing to the administration, and the other way round.
    let admin = std::env::args_os().nth(1).is_some_and(|word| word == "admin");
    let ran = if admin {
        administrate(AdminArguments::parse_from(std::env::args_os().skip(1)))
    } else {
        serve(&Serve::parse())
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline-origin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HOLDLINE_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

#[tokio::main(flavor = "current_thread")]
async fn administrate(arguments: AdminArguments) -> anyhow::Result<()> {
    holdline_origin::admin::run(arguments).await
}

#[tokio::main]
async fn serve(arguments: &Serve) -> anyhow::Result<()> {
    log();
    let role = match arguments.role {
        Role::Origin => "origin",
        Role::Monitor => "monitor",
    };
    let (app, worker) = assemble(arguments, role).await?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    say(&format!("{role}: http://{}", listener.local_addr()?));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // What it has begun with Twilio when the program ends is found in the outbox by whoever is next.
    let working = tokio::spawn(worker.run());
    axum::serve(listener, web::router(app))
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await?;
    working.abort();
    Ok(())
}

async fn assemble(
    arguments: &Serve,
    role: &'static str,
) -> anyhow::Result<(Arc<App>, Arc<Worker>)> {
    // From the environment only, so that it shows in no process list.
    let token: SecretString = filled("TWILIO_AUTH_TOKEN")
        .context("set TWILIO_AUTH_TOKEN to the account's auth token")?
        .into();
    let mut keys = Keyring::default();
    keys.add_token(arguments.account_sid, &token);
    let signed_for = std::iter::once(&arguments.public_url)
        .chain(&arguments.also_signed_for)
        .chain(&arguments.fallback_url);
    let public_urls = signed_for
        .map(|url| PublicUrl::parse(url).with_context(|| format!("{url:?} is no public URL")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let at_once = usize::from(arguments.twilio_at_once);
    let twilio = Twilio::new(&arguments.twilio_url, &arguments.account_sid, &token, at_once)
        .context("the system's certificates cannot be read")?;
    // Read here, so that a password that is misplaced in it is not repeated on the terminal.
    let database: Database = arguments.database.parse()?;
    let store = Arc::new(Store::open(&database).await.context("cannot open the database")?);
    if arguments.sample && store.add_sample().await? {
        tracing::info!("added the sample account");
    }
    let links = Links::new(&arguments.public_url, arguments.fallback_url.as_deref());
    let metrics = Arc::new(Metrics::new()?);
    let orders = Arc::new(Notify::new());
    let worker = Worker {
        store: store.clone(),
        twilio,
        links: links.clone(),
        metrics: metrics.clone(),
        orders: orders.clone(),
        detection: arguments.machine_detection,
        patience: Duration::from_secs(arguments.patience),
        speed: arguments.speed,
    };
    let app = App {
        store,
        keys,
        public_urls,
        links,
        role,
        process_fallbacks: !arguments.ignore_fallbacks,
        metrics,
        orders,
        inspect_token: filled("HOLDLINE_ORIGIN_INSPECT_TOKEN").map(Into::into),
    };
    Ok((Arc::new(app), Arc::new(worker)))
}

/// A variable of the environment. An empty one is none: as a secret it would be everybody's.
fn filled(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (1.0..=1000.0).contains(speed));
    speed.ok_or_else(|| format!("{text:?} is no number from 1 to 1000"))
}

#[expect(clippy::print_stdout, reason = "the announcement is the program's output")]
fn say(line: &str) {
    println!("{line}");
}
