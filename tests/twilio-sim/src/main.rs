//! The phone company as a program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdline_twilio::signature::Key;
use twilio_sim::{Call, Line, Party};
use url::Url;

/// Places calls against webhooks as Twilio does.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes one call and prints its transcript; fails if the person heard an apology.
    Call(CallArguments),
}

#[derive(Debug, clap::Args)]
struct CallArguments {
    /// Asked for the first document.
    #[arg(long)]
    voice_url: Url,
    /// Asked when a document cannot be had or carried out.
    #[arg(long)]
    fallback_url: Option<Url>,
    /// Told when the call is over.
    #[arg(long)]
    status_callback: Option<Url>,
    /// Where to connect instead of what the host names resolve to.
    #[arg(long)]
    connect_to: Option<std::net::SocketAddr>,
    /// What the person does: "access number=1234567*; menu=#; leave 20s; hang up 5s".
    #[arg(long, default_value = "")]
    party: Party,
    /// How much faster than in reality speech and pauses pass.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The account.
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    account_sid: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Call(arguments) = Arguments::parse().command;
    let Ok(token) = std::env::var("TWILIO_AUTH_TOKEN") else {
        eprintln!("twilio-sim: set TWILIO_AUTH_TOKEN to the account's auth token");
        return ExitCode::from(64);
    };
    let line = Line {
        account_sid: arguments.account_sid,
        key: Key::auth_token(&token.into()),
        voice_url: arguments.voice_url,
        fallback_url: arguments.fallback_url,
        status_callback: arguments.status_callback,
        connect_to: arguments.connect_to,
        speed: arguments.speed.max(0.001),
    };
    let transcript = Call::new(line, arguments.party).make().await;
    let text = if arguments.json {
        serde_json::to_string_pretty(&transcript).unwrap_or_default()
    } else {
        transcript.to_string()
    };
    say(&text);
    if transcript.is_unbroken() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the transcript is the program's output")]
fn say(text: &str) {
    println!("{text}");
}
