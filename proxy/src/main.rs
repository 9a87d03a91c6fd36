//! The edge as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdline::cli::cloudflare;
use holdline::cli::history::HistoryArguments;
use holdline::cli::orders::{DrillArguments, StanceArguments};
use holdline::cli::spool::SpoolArguments;
use holdline::cli::status::StatusArguments;
use holdline::cli::tune::TuneArguments;
use holdline::config::Config;
use holdline::handover::Predecessor;
use holdline::{cli, serve, spool, telemetry};

/// The system's allocator spends a tenth of a visit; this one, a third of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An edge proxy that keeps Twilio calls alive when the application behind them fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the edge until SIGTERM or Ctrl-C. SIGHUP: read the configuration anew. SIGUSR2: leave
    /// everything to a new process of the program as it is installed then.
    Serve {
        #[command(flatten)]
        file: ConfigFile,
        /// Take over from the process that starts this one.
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Checks a configuration, with everything it refers to, and starts nothing.
    Check(Checked),
    /// Shows what a running edge says of itself; fails if it is not ready.
    Status(StatusArguments),
    /// Orders who answers, for a time: automatic, monitor, canned.
    Stance(StanceArguments),
    /// Lets an upstream fail on purpose, for a share of the calls and a time, and says what callers got.
    Drill(Box<DrillArguments>),
    /// Shows what was seen of the upstreams, what was believed, and why.
    History(HistoryArguments),
    /// Tries other thresholds on what was seen, or on failures that are made up.
    Tune(Box<TuneArguments>),
    /// Looks at the callbacks that are kept, sends them again, removes them, carries them elsewhere.
    Spool(Box<SpoolArguments>),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration (TOML).
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Checked {
    /// The configuration (TOML).
    #[arg(
        long,
        value_name = "FILE",
        env = "HOLDLINE_CONFIG",
        required_unless_present = "refresh_cloudflare"
    )]
    config: Option<PathBuf>,
    /// Fetches Cloudflare's networks as published now into this file; name it in [trust] cloudflare.
    #[arg(long, value_name = "FILE")]
    refresh_cloudflare: Option<PathBuf>,
    /// Where from: an https URL, or a file with what was fetched elsewhere.
    #[arg(long, value_name = "SOURCE", default_value = cloudflare::PUBLISHED)]
    from: String,
}

/// The configuration is at fault (BSD's sysexits.h: EX_USAGE).
const FAULTY_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let (file, only_check, take_over) = match Arguments::parse().command {
        Command::Serve { file, take_over } => (file.config, false, take_over),
        Command::Check(checked) => match (refresh(&checked), checked.config) {
            (Err(error), _) => {
                eprintln!("holdline: {error:#}");
                return ExitCode::FAILURE;
            }
            (Ok(()), None) => return ExitCode::SUCCESS,
            (Ok(()), Some(file)) => (file, true, false),
        },
        Command::Status(arguments) => return show_status(arguments),
        Command::Spool(arguments) => return finished(asked(cli::spool::run(*arguments))),
        Command::Stance(arguments) => return told(asked(cli::orders::stance(arguments))),
        Command::Drill(arguments) => return told(asked(cli::orders::drill(*arguments))),
        Command::History(arguments) => return told(cli::history::run(&arguments)),
        Command::Tune(arguments) => return told(cli::tune::tune(&arguments)),
    };
    let config = match Config::load(&file) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}; nothing was started");
            return ExitCode::from(FAULTY_CONFIGURATION);
        }
    };
    if only_check {
        if let Err(fault) = look_at_spool(&config) {
            eprintln!("holdline: {fault}");
            return ExitCode::from(FAULTY_CONFIGURATION);
        }
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        say(&format!("{}: no faults, {} rows", file.display(), config.catalogue.rows().len()));
        return ExitCode::SUCCESS;
    }
    let _guard = telemetry::init(config.log);
    let announce = |at: &serve::Addresses| {
        for (address, is_tls) in &at.public {
            let scheme = if *is_tls { "https" } else { "http" };
            say(&format!("holdline: public {scheme}://{address}"));
        }
        say(&format!("holdline: admin http://{}", at.admin));
    };
    let predecessor = take_over.then(Predecessor::meet).transpose();
    match predecessor.and_then(|old| serve::run(config, file, old, announce)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Refreshes Cloudflare's networks, if that was asked for.
fn refresh(checked: &Checked) -> anyhow::Result<()> {
    let Some(file) = &checked.refresh_cloudflare else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    say(&runtime.block_on(cloudflare::refresh(file, &checked.from))?);
    Ok(())
}

/// Refuses a spool that this version must not touch.
fn look_at_spool(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(spool::Location::new(config.spool.folder.clone()).look())?;
    Ok(())
}

fn show_status(arguments: StatusArguments) -> ExitCode {
    match asked(cli::status::run(arguments)) {
        Ok((said, ready)) => {
            if !said.is_empty() {
                say(&said);
            }
            if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => finished(Err(error)),
    }
}

/// Asks a running edge.
fn asked<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(asking)
}

/// Says what there is to say.
fn told(said: anyhow::Result<String>) -> ExitCode {
    finished(said.map(|said| {
        if !said.is_empty() {
            say(&said);
        }
    }))
}

fn finished(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    use std::io::Write as _;
    // Whoever reads may have read enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}
