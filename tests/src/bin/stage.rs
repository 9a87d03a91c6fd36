//! Edge, origin and monitor on one machine, to look at and to play with.
//!
//! `run` starts them all and leaves them running until Ctrl-C. `demo` lets a person dial in, kills
//! what answers them, twice, and shows that the call goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use holdline_tests::Program;
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use twilio_sim::{
    Company, Connecting, Ending, Endpoint, Line, Mishaps, Moment, Party, Population, Purpose, Seed,
    Settings, Step, Transcript,
};
use url::Url;

const ACCOUNT: &str = "ACdddddddddddddddddddddddddddddddd";
const TOKEN: &str = "development-token";
const ADMIN_TOKEN: &str = "development-admin-token";
const PIN: &str = "1000008";
const POWER_PIN: &str = "1000002";
const DATABASE: &str = "sample.sqlite";
const EDGE: &str = "http://127.0.0.1:8080";
const ADMIN: &str = "http://127.0.0.1:9090";
const ORIGIN: &str = "127.0.0.1:8081";
const MONITOR: &str = "127.0.0.1:8082";
/// The phone company, which the origin takes for Twilio.
const COMPANY: &str = "127.0.0.1:8090";
const COMPANY_URL: &str = "http://127.0.0.1:8090";
/// How long a program may take to end when it is asked to.
const END: Duration = Duration::from_secs(15);
/// A caller's whole patience for one document.
const DEADLINE_MS: u64 = 9000;

/// Edge, origin and monitor on one machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Play,
    /// The edge's configuration.
    #[arg(long, global = true, default_value = "config/development.toml")]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Play {
    /// Starts them all and waits for Ctrl-C.
    Run,
    /// Makes a call and kills what answers it.
    Demo,
}

/// The running programs.
struct Stage {
    edge: Program,
    origin: Program,
    monitor: Program,
    company: Program,
    folder: TempDir,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let played = match arguments.command {
        Play::Run => run(&arguments.config).await,
        Play::Demo => demo(&arguments.config).await,
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Path) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stage = Stage::set(config).await?;
    say(&format!(
        "\nHoldline is running.\n\n\
         edge     {EDGE}   (status: {ADMIN}/status, metrics: {ADMIN}/metrics)\n\
         origin   http://{ORIGIN}\n\
         monitor  http://{MONITOR}\n\
         company  {COMPANY_URL}   (who is on the phone: {COMPANY_URL}/control/calls)\n\
         logs     {}\n\n\
         A signed request, as Twilio would send it:\n\n{}\n\n\
         A whole call, with a caller who keys a sample PIN and finds nobody left to call:\n\n{}\n\n\
         A caller who works through the list of the power campaign, and what became of that:\n\n{}\n\n\
         Then stop the origin (kill {}) and call again. What the edge made of it, and what other\n\
         thresholds would have:\n\n\
         \x20 target/debug/holdline history --journal {journal}\n\
         \x20 target/debug/holdline tune --journal {journal}\n\n\
         Or order who answers:\n\n\
         \x20 export TWILIO_AUTH_TOKEN={TOKEN} HOLDLINE_ADMIN_TOKEN={ADMIN_TOKEN}\n\
         \x20 target/debug/holdline stance monitor --for 1m --config {config}\n\n\
         Ctrl-C ends everything.",
        stage.folder.path().display(),
        sample_request(),
        sample_call(),
        sample_work(&stage.folder),
        stage.origin.pid().unwrap_or_default(),
        journal = stage.folder.path().join("journal").display(),
        config = config.display(),
    ));
    tokio::select! {
        _ = interrupt.recv() => say("\nstopping"),
        _ = terminate.recv() => say("\nstopping"),
        status = stage.edge.ended(Duration::MAX) => bail!("the edge ended by itself: {}", status?),
    }
    stage.end().await
}

async fn demo(config: &Path) -> anyhow::Result<()> {
    let mut stage = Stage::set(config).await?;
    let (watcher, moments) = mpsc::unbounded_channel();
    let caller = Party::silent()
        .press("access number", &format!("{PIN}*"))
        .press("star", "#")
        .press("star", "#")
        .press("star", "*");
    say("A caller with nothing but a telephone dials in.\n");
    let call = tokio::spawn(company()?.call(line()?, caller).watched_by(watcher).make());
    stage.direct(moments).await?;
    let heard = call.await?;
    say(&format!("            {}\n", heard.ending));
    stage.end().await?;
    judge(&heard)
}

/// Whether the call was what it should have been.
fn judge(heard: &Transcript) -> anyhow::Result<()> {
    let by = heard.answered_by();
    let count = |who: &str| by.iter().filter(|by| **by == who).count();
    let callback = heard.webhooks().find(|webhook| webhook.purpose == Purpose::Status);
    say(&format!(
        "{} documents: {} by the origin, {} by the monitor, {} held; the longest took {} ms",
        by.len(),
        count("origin"),
        count("monitor"),
        count("hold"),
        heard.longest_wait_ms()
    ));
    for (fine, what) in [
        (heard.is_unbroken(), "a step had no valid TwiML"),
        (heard.longest_wait_ms() <= DEADLINE_MS, "a step was answered too late"),
        (count("origin") >= 4, "the origin did not steer the call before and after"),
        (count("monitor") >= 2, "the monitor did not step in"),
        (count("hold") >= 1, "the call was never held"),
        (count("canned") == 0, "the call was given up"),
        (
            heard.ending == Ending::HungUp && heard.heard().contains("nobody left to call"),
            "the call did not end as intended",
        ),
        (
            callback.is_some_and(|callback| callback.status == Some(204)),
            "the status callback was not taken",
        ),
    ] {
        if !fine {
            bail!("{what}");
        }
    }
    say("The caller never noticed.");
    Ok(())
}

// === impl Stage ===

impl Stage {
    async fn set(config: &Path) -> anyhow::Result<Stage> {
        for address in [ORIGIN, MONITOR, COMPANY] {
            let taken = tokio::net::TcpListener::bind(address).await.is_err();
            if taken {
                bail!("{address} is in use; end whatever listens there first");
            }
        }
        let folder = tempfile::tempdir()?;
        let arguments = ["serve", "--account-sid", ACCOUNT, "--listen", COMPANY, "--speed", "4"];
        let mut company =
            Program::start("twilio-sim", "company", &arguments, &environment(), folder.path())?;
        company.announced("twilio-sim: ").await?;
        let origin = start_upstream("origin", ORIGIN, &folder).await?;
        let monitor = start_upstream("monitor", MONITOR, &folder).await?;
        let config = config.to_str().context("the configuration's path is not text")?;
        let mut environment = environment();
        let spool = folder.path().join("spool").display().to_string();
        environment.insert("HOLDLINE__SPOOL__FOLDER", spool);
        let journal = folder.path().join("journal").display().to_string();
        environment.insert("HOLDLINE__JOURNAL__FOLDER", journal);
        environment.insert("HOLDLINE__ADMIN__TOKEN", "env:HOLDLINE_ADMIN_TOKEN".to_owned());
        let arguments = ["serve", "--config", config];
        let mut edge = Program::start("holdline", "edge", &arguments, &environment, folder.path())?;
        edge.announced("holdline: admin ").await?;
        Ok(Stage { edge, origin, monitor, company, folder })
    }

    /// Shows every step of the call, and does harm at two of them.
    async fn direct(&mut self, mut moments: mpsc::UnboundedReceiver<Moment>) -> anyhow::Result<()> {
        let mut documents_by_monitor = 0;
        let mut returned = false;
        while let Some(moment) = moments.recv().await {
            say(&moment.step.to_string());
            let Step::Webhook(webhook) = &moment.step else { continue };
            match webhook.answered_by.as_deref() {
                Some("origin") if webhook.path == "/identify_caller" => {
                    self.origin.kill().await?;
                    say("            *** the origin is killed (kill -9) ***");
                }
                Some("monitor") => {
                    documents_by_monitor += 1;
                    if documents_by_monitor == 2 {
                        self.monitor.kill().await?;
                        say("            *** the monitor is killed too ***");
                    }
                }
                Some("hold") if !returned => {
                    returned = true;
                    self.origin = start_upstream("origin", ORIGIN, &self.folder).await?;
                    say("            *** the origin returns ***");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks everything to end, and waits until it has.
    async fn end(mut self) -> anyhow::Result<()> {
        for program in [&mut self.edge, &mut self.origin, &mut self.monitor] {
            // What was killed, or got the terminal's signal too, may be gone already.
            let _ = program.terminate();
            program.ended(END).await?;
        }
        self.company.kill().await
    }
}

async fn start_upstream(role: &str, listen: &str, folder: &TempDir) -> anyhow::Result<Program> {
    let database = folder.path().join(DATABASE).display().to_string();
    let arguments = [
        "--role",
        role,
        "--listen",
        listen,
        "--database",
        &database,
        "--public-url",
        EDGE,
        "--account-sid",
        ACCOUNT,
        "--twilio-url",
        COMPANY_URL,
        "--speed",
        "4",
        "--sample",
    ];
    let mut program =
        Program::start("holdline-origin", role, &arguments, &environment(), folder.path())?;
    program.announced(&format!("{role}: ")).await?;
    Ok(program)
}

fn environment() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
        ("HOLDLINE_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
    ])
}

fn company() -> anyhow::Result<Company> {
    let public: SocketAddr = EDGE.trim_start_matches("http://").parse()?;
    let settings = Settings {
        account_sid: ACCOUNT.into(),
        auth_token: TOKEN.into(),
        connecting: Connecting { connect_to: Some(public), ..Connecting::default() },
        seed: Seed::from_environment().map_err(anyhow::Error::msg)?,
        speed: 4.0,
        mishaps: Mishaps::default(),
        people: Population::default(),
    };
    Company::open(settings).map_err(anyhow::Error::msg)
}

fn line() -> anyhow::Result<Line> {
    Ok(Line {
        number: "+15005550001".into(),
        voice: Endpoint::from(Url::parse(&format!("{EDGE}/callin/create"))?),
        fallback: None,
        status: Some(Endpoint::from(Url::parse(&format!("{EDGE}/caller/end_session"))?)),
    })
}

fn sample_request() -> String {
    let form = Form::from_pairs([
        ("AccountSid", ACCOUNT),
        ("CallSid", "CA00000000000000000000000000000001"),
        ("CallStatus", "ringing"),
        ("From", "+15005550006"),
        ("To", "+15005550001"),
    ]);
    let signature =
        Key::auth_token(&TOKEN.into()).sign(EDGE, "/callin/create", Content::Form(&form));
    format!(
        "  curl -i {EDGE}/callin/create -H 'X-Twilio-Signature: {signature}' -d '{}'",
        form.encode()
    )
}

fn sample_call() -> String {
    format!(
        "  TWILIO_AUTH_TOKEN={TOKEN} target/debug/twilio-sim call --account-sid {ACCOUNT} \\\n    \
         --voice-url {EDGE}/callin/create --status-callback {EDGE}/caller/end_session \\\n    \
         --party 'access number={PIN}*; star=#; star=*' --speed 4"
    )
}

fn sample_work(folder: &TempDir) -> String {
    let database = folder.path().join(DATABASE).display().to_string();
    format!(
        "  curl -s {COMPANY_URL}/control/calls -H 'Content-Type: application/json' -d '{{\"to\": \"+15005550001\",\n    \
         \"voice_url\": \"{EDGE}/callin/create\", \"status_callback\": \"{EDGE}/caller/end_session\",\n    \
         \"party\": \"access number={POWER_PIN}*; take calls=*; always talk 3s-8s; \
         always conversation go=1*; always to the meeting=1*|2*\"}}'\n  \
         curl -s {COMPANY_URL}/control/calls\n  \
         target/debug/holdline-origin admin --database {database} results 2"
    )
}

#[expect(clippy::print_stdout, reason = "what is shown is the program's output")]
fn say(text: &str) {
    println!("{text}");
}
