//! The phone company as a program.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use twilio_sim::company::Event;
use twilio_sim::load::{Leads, Load, Progress};
use twilio_sim::summary::Summary;
use twilio_sim::{
    Company, Connecting, Endpoint, Line, Mishaps, Party, Population, Seed, Settings, control, load,
    rest,
};
use url::Url;

/// A phone company that treats webhooks as Twilio does.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
The account's auth token is read from TWILIO_AUTH_TOKEN. All requests are signed with it.

What people do is written as acts in order, separated by semicolons:
  WORDS=KEYS   when WORDS were heard, presses KEYS (a caller who signs in: access number=1234567*)
  wait 2s      at a question or in a conference, takes time before the next act
  leave 20s    in a conference, presses star 20 s after joining it
  talk 20s     in a conference, presses star 20 s after somebody came to talk to
  hang up 5s   hangs up 5 s after the act before, wherever that is
  repeat       starts over
  always ...   WORDS=KEYS or talk 20s, whenever there is occasion; of keys written 1*|2* chance takes one
A time may be a range: wait 2s-5s.

People who are called begin with how they take it:
  answers 3s-12s; hang up 20s    machine 15s; hang up 20s    busy    no answer    fails
and a population is a mixture of them: 60 answers 3s; hang up 9s | 40 busy

Exit codes: 0 all was well, 1 something that must not happen did, 64 the arguments are at fault."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes one call and prints its transcript.
    Call(CallArguments),
    /// Lets many people call for a time and prints what it came to.
    Load(LoadArguments),
    /// Serves the REST API of the account and the control API.
    Serve(ServeArguments),
}

/// What all have in common.
#[derive(Debug, Args)]
struct CompanyArguments {
    /// The account.
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    account_sid: String,
    /// Where to connect instead of what host names resolve to.
    #[arg(long, value_name = "ADDRESS")]
    connect_to: Option<SocketAddr>,
    /// Where to connect for one host name; may be given more than once.
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = resolution)]
    resolve: Vec<(String, SocketAddr)>,
    /// Certificates to trust beside the system's, in PEM.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// How much faster than in reality speech, pauses, ringing and waiting pass.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// What chance comes from: the same seed makes the same choices.
    #[arg(long, value_name = "HEX")]
    seed: Option<Seed>,
    /// Who answers when the application calls a number.
    #[arg(long, value_name = "POPULATION", default_value_t)]
    people: PopulationText,
    /// The share of reports that are never sent.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    lose_reports: f64,
    /// The share of reports that are sent twice.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    repeat_reports: f64,
    /// Reports are held back by up to this many seconds, so that they overtake each other.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    delay_reports: f64,
}

#[derive(Debug, Args)]
struct LineArguments {
    /// Asked for the first document.
    #[arg(long)]
    voice_url: Url,
    /// Asked when a document cannot be had or carried out.
    #[arg(long)]
    fallback_url: Option<Url>,
    /// Told when the call is over.
    #[arg(long)]
    status_callback: Option<Url>,
    /// What each person does (see the end of `twilio-sim --help`).
    #[arg(long, default_value = "")]
    party: Party,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CallArguments {
    #[command(flatten)]
    company: CompanyArguments,
    #[command(flatten)]
    line: LineArguments,
}

#[derive(Debug, Args)]
struct LoadArguments {
    #[command(flatten)]
    company: CompanyArguments,
    #[command(flatten)]
    line: LineArguments,
    /// How many call at once.
    #[arg(long, default_value_t = 10)]
    callers: usize,
    /// For how many seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    time: f64,
    /// Over how many seconds they begin, and end.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    ramp: f64,
    /// How many seconds a person waits before the next call; shortened by --speed.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    again_after: f64,
    /// Calls people beside them, one after another for each caller; an n in braces stands for a number.
    #[arg(long, value_name = "URL")]
    lead_url: Option<String>,
    /// Told about those calls.
    #[arg(long, value_name = "URL", requires = "lead_url")]
    lead_status_callback: Option<String>,
}

#[derive(Debug, Args)]
struct ServeArguments {
    #[command(flatten)]
    company: CompanyArguments,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

/// A population as it was written, so that it can be shown as the default.
#[derive(Debug, Clone)]
struct PopulationText(Population, String);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to be said where this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    // One thread: what it costs is then comparable, and a load cannot take all cores from what it
    // measures.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return usage(&error.to_string()),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Call(arguments) => call(arguments).await,
            Command::Load(arguments) => run_load(arguments).await,
            Command::Serve(arguments) => serve(arguments).await,
        }
    });
    done.unwrap_or_else(|what| usage(&what))
}

async fn call(arguments: CallArguments) -> Result<ExitCode, String> {
    let company = company(&arguments.company, false)?;
    let (listener, mut ended) = tokio::sync::mpsc::unbounded_channel();
    company.listened_to_by(listener);
    let call = company.call(line(&arguments.line), arguments.line.party.clone());
    let transcript = call.make().await;
    company.settled().await;
    let mut summary = Summary::default();
    let mut others = Vec::new();
    while let Ok(event) = ended.try_recv() {
        match event {
            Event::Call(other) => {
                summary.add(&other);
                others.extend((other.call_sid != transcript.call_sid).then_some(other));
            }
            Event::Webhook(webhook) => summary.add_webhook(&webhook),
        }
    }
    if arguments.line.json {
        let all = serde_json::json!({ "call": transcript, "dialed": others });
        say(&serde_json::to_string_pretty(&all).unwrap_or_default());
    } else {
        say(&transcript.to_string());
        others.iter().for_each(|other| say(&format!("\n{other}")));
    }
    for breach in &summary.first_breaches {
        eprintln!("twilio-sim: {breach}");
    }
    Ok(verdict(summary.breaches == 0, &company))
}

async fn run_load(arguments: LoadArguments) -> Result<ExitCode, String> {
    let company = company(&arguments.company, true)?;
    let seconds = |seconds: f64, name: &str| {
        Duration::try_from_secs_f64(seconds).map_err(|_| format!("--{name} {seconds} is no time"))
    };
    let load = Load {
        line: line(&arguments.line),
        party: arguments.line.party.clone(),
        callers: arguments.callers,
        time: seconds(arguments.time, "time")?,
        ramp: seconds(arguments.ramp, "ramp")?,
        again_after: seconds(arguments.again_after / company.speed(), "again-after")?,
        leads: arguments.lead_url.map(|url| Leads { url, status: arguments.lead_status_callback }),
    };
    let (summary, cost) = load::run(&company, load, show).await?;
    eprintln!();
    if arguments.line.json {
        say(&serde_json::to_string_pretty(&summary.to_json(&cost)).unwrap_or_default());
    } else {
        say(&summary.to_text(&cost));
    }
    Ok(verdict(summary.breaches == 0, &company))
}

async fn serve(arguments: ServeArguments) -> Result<ExitCode, String> {
    let company = company(&arguments.company, false)?;
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    say(&format!("twilio-sim: http://{address} (seed {})", company.seed()));
    let service = rest::router(company.clone()).merge(control::router(company));
    axum::serve(listener, service)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn company(arguments: &CompanyArguments, reuse: bool) -> Result<Company, String> {
    let token = std::env::var("TWILIO_AUTH_TOKEN")
        .map_err(|_| "set TWILIO_AUTH_TOKEN to the account's auth token".to_owned())?;
    if !arguments.speed.is_finite() || arguments.speed <= 0.0 {
        return Err(format!("--speed {} is not above zero", arguments.speed));
    }
    let trust = match &arguments.trust {
        Some(path) => Some(
            std::fs::read(path).map_err(|error| format!("--trust {}: {error}", path.display()))?,
        ),
        None => None,
    };
    let mishaps = Mishaps {
        lose_reports: arguments.lose_reports,
        repeat_reports: arguments.repeat_reports,
        delay_reports_s: arguments.delay_reports,
        ..Mishaps::default()
    };
    let faults = mishaps.faults();
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    Company::open(Settings {
        account_sid: arguments.account_sid.clone(),
        auth_token: token.into(),
        connecting: Connecting {
            resolve: arguments.resolve.iter().cloned().collect::<HashMap<_, _>>(),
            connect_to: arguments.connect_to,
            trust,
            reuse,
        },
        seed: arguments.seed.map_or_else(Seed::from_environment, Ok)?,
        speed: arguments.speed,
        mishaps,
        people: arguments.people.0.clone(),
    })
}

fn line(arguments: &LineArguments) -> Line {
    Line {
        number: "+15005550001".into(),
        voice: Endpoint::from(arguments.voice_url.clone()),
        fallback: arguments.fallback_url.clone().map(Endpoint::from),
        status: arguments.status_callback.clone().map(Endpoint::from),
    }
}

fn resolution(text: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = text.split_once('=').ok_or("write HOST=ADDRESS:PORT")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no address with a port"))?;
    Ok((host.to_owned(), address))
}

/// The exit code; where it is a bad one, how to have the same choices again.
fn verdict(well: bool, company: &Company) -> ExitCode {
    if well {
        return ExitCode::SUCCESS;
    }
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(place) = words.iter().position(|word| word == "--seed") {
        words.drain(place..(place + 2).min(words.len()));
    }
    words.retain(|word| !word.starts_with("--seed="));
    let quoted = words.iter().map(|word| {
        let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=+".contains(&b));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    let command = quoted.collect::<Vec<_>>().join(" ");
    eprintln!("twilio-sim: again with the same choices: {command} --seed {}", company.seed());
    ExitCode::FAILURE
}

fn show(progress: Progress) {
    eprint!(
        "\r{:4.0} s  {} calls, {} webhooks, {} breaches ",
        progress.elapsed.as_secs_f64(),
        progress.calls,
        progress.webhooks,
        progress.breaches
    );
    // Progress that cannot be shown is not missed.
    let _ = std::io::stderr().flush();
}

fn usage(what: &str) -> ExitCode {
    eprintln!("twilio-sim: {what}");
    ExitCode::from(64)
}

#[expect(clippy::print_stdout, reason = "the transcript is the program's output")]
fn say(text: &str) {
    println!("{text}");
}

// === impl PopulationText ===

impl Default for PopulationText {
    fn default() -> PopulationText {
        PopulationText(Population::default(), Population::DEFAULT.to_owned())
    }
}

impl std::fmt::Display for PopulationText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::str::FromStr for PopulationText {
    type Err = String;

    fn from_str(text: &str) -> Result<PopulationText, String> {
        Ok(PopulationText(text.parse()?, text.to_owned()))
    }
}
