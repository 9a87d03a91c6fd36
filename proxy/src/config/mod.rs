//! The configuration: what was written, checked as a whole, before anything is opened.
//!
//! [`Config::load`] reads one TOML file, the environment's overrides, the secrets and the catalogue,
//! and gives either a configuration in which nothing is left to go wrong, or the list of everything
//! that is wrong with it. Keys and defaults are described in the files under `config/`.

pub mod faults;
pub mod health;
mod journal;
mod limits;
mod listen;
mod reach;
pub mod reader;
mod rows;
mod secrets;
mod spool;
mod upstreams;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdline_policy::{Catalogue, Kind, Pace, Thresholds};
use holdline_twilio::{AccountSid, Keyring, PublicUrl};
use secrecy::SecretString;

use crate::answer::CannedSet;
use crate::journal::JournalConfig;
use crate::relay::hold::HoldKeys;
use crate::spool::SpoolConfig;
use crate::trust::Trust;
use faults::{FaultList, Faults};
pub use health::{Judging, Knob};
pub use limits::{Limits, Worth};
pub use listen::{ListenerConfig, networks_in};
pub use reach::Reach;
use reader::{Section, Source};
pub use secrets::only_for_few;
pub use upstreams::{BaseUrl, ProbeConfig, UpstreamConfig, UpstreamTls};

/// A configuration in which nothing is left to go wrong.
#[derive(Debug)]
pub struct Config {
    /// Its name: development, staging, production.
    pub environment: String,
    /// Where callbacks arrive.
    pub public: Vec<ListenerConfig>,
    /// Where operators ask.
    pub admin: SocketAddr,
    /// Opens what shows or changes more than counts on the admin plane; without it nobody may.
    pub admin_token: Option<SecretString>,
    /// The URL Twilio was given.
    pub public_url: PublicUrl,
    /// Keys that prove and sign.
    pub keys: Keyring,
    /// What happens to a request that is not proven.
    pub signature: SignaturePolicy,
    /// Origin and monitor.
    pub upstreams: [UpstreamConfig; 2],
    /// Who is asked for their addresses; none: those of the system.
    pub name_servers: Option<Vec<SocketAddr>>,
    /// The numbers behind the verdict.
    pub thresholds: Thresholds,
    /// How often upstreams are probed.
    pub pace: Pace,
    /// After how long an upstream that has not answered well is unproven.
    pub stale_after: Duration,
    /// The endpoints.
    pub catalogue: Catalogue,
    /// The canned documents.
    pub canned: CannedSet,
    /// The keys of hold tokens; none: one that only this process has.
    pub hold_keys: Option<HoldKeys>,
    /// Whom the edge believes when it says who the client is.
    pub trust: Trust,
    /// How much is taken in.
    pub limits: Limits,
    /// What happens to paths the catalogue does not list.
    pub unlisted: Unlisted,
    /// Where callbacks wait.
    pub spool: SpoolConfig,
    /// Where it is written down what happens to the upstreams.
    pub journal: JournalConfig,
    /// Worker threads of the data plane.
    pub threads: usize,
    /// How the process ends.
    pub stop: Stop,
    /// How logs are written.
    pub log: LogFormat,
    /// Whether each visit leaves a line.
    pub log_visits: bool,
    /// What can be used as it is, but will not do for long.
    pub warnings: Vec<String>,
}

/// What happens to a request that is not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// It is refused.
    Enforce,
    /// It is counted and let through, until this time; refused afterwards.
    ReportUntil(SystemTime),
}

/// What happens to paths the catalogue does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// 404.
    Refuse,
    /// Streamed to and from the origin.
    Pass,
}

/// How the process ends after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// For how long new visits are still taken while `/ready` fails.
    pub drain: Duration,
    /// How long running visits may take after that.
    pub grace: Duration,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The catalogue shipped with the binary.
const SHIPPED_CATALOGUE: &str = include_str!("../../../config/catalogue.toml");

// === impl Config ===

impl Config {
    /// Loads `path`, with overrides and secrets from this process's environment.
    pub fn load(path: &Path) -> Result<Config, FaultList> {
        Config::load_with(path, &own_environment())
    }

    /// Loads `path` with the given environment variables.
    pub fn load_with(
        path: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Config, FaultList> {
        let faults = Faults::default();
        let file = path.display().to_string();
        let source = Source { file: &file, environment, faults: &faults };
        let table = read_table(path, &file, &faults);
        let config = table.and_then(|table| {
            let folder = path.parent().unwrap_or(Path::new("."));
            read(&mut Section::root(source, table), folder, source)
        });
        faults.into_result()?;
        // A configuration without faults is whole; see `read`.
        config.ok_or_else(|| {
            let faults = Faults::default();
            faults.add(&file, "", "could not be read");
            faults.into_result().err().unwrap_or_else(|| unreachable!("a fault was just added"))
        })
    }

    /// The upstream's configuration.
    pub fn upstream(&self, upstream: holdline_policy::Upstream) -> &UpstreamConfig {
        &self.upstreams[upstream.index()]
    }
}

/// This process's environment; what is no text cannot be a setting.
fn own_environment() -> BTreeMap<String, String> {
    let texts = std::env::vars_os().map(|(name, value)| (name.into_string(), value.into_string()));
    texts.filter_map(|(name, value)| Some((name.ok()?, value.ok()?))).collect()
}

fn read_table(path: &Path, file: &str, faults: &Faults) -> Option<toml::Table> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.add(file, "", format!("cannot be read: {error}"));
            return None;
        }
    };
    match text.parse() {
        Ok(table) => Some(table),
        Err(error) => {
            faults.add(file, "", format!("is not TOML: {}", error.to_string().trim_end()));
            None
        }
    }
}

fn read(root: &mut Section<'_>, folder: &Path, source: Source<'_>) -> Option<Config> {
    let environment = root.required("environment");
    let mut warnings = Vec::new();
    let mut listen = root.section("listen");
    let public = listen::read_public(&mut listen, folder, &mut warnings);
    let admin = read_admin_address(&mut listen);
    drop(listen);
    let trust = listen::read_trust(&mut root.section("trust"), folder);
    let limits = limits::read(&mut root.section("limits"));
    let admin_token = root.section("admin").secret("token");
    let public_url = read_public_url(root);
    let (keys, signature) = read_twilio(&mut root.section("twilio"));
    let upstreams = upstreams::read(&mut root.section("upstreams"), public_url.as_ref(), folder);
    let name_servers = read_name_servers(&mut root.section("dns"));
    let (Judging { thresholds, pace }, stale_after) = health::read(&mut root.section("health"));
    let (catalogue, unlisted) = read_catalogue(&mut root.section("catalogue"), folder, source);
    let canned = read_canned(&mut root.section("static_twiml"), folder);
    let hold_keys = read_hold_keys(&mut root.section("hold"), environment.as_deref());
    let spool = spool::read(&mut root.section("spool"), folder);
    let journal = journal::read(&mut root.section("journal"), folder, &mut warnings);
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let threads = root.section("runtime").number("threads", cores, 1, 1024) as usize;
    let stop = read_stop(&mut root.section("stop"));
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let mut log_section = root.section("log");
    let log = log_section.choice("format", &formats).unwrap_or(LogFormat::Json);
    let log_visits = log_section.flag("visits", true);
    drop(log_section);
    if let (Some(catalogue), Some(canned)) = (&catalogue, &canned) {
        check_canned(root, catalogue, canned);
    }
    Some(Config {
        environment: environment?,
        public,
        admin: admin?,
        admin_token,
        public_url: public_url?,
        keys,
        signature: signature?,
        upstreams: upstreams?,
        name_servers,
        thresholds,
        pace,
        stale_after,
        catalogue: catalogue?,
        canned: canned?,
        hold_keys,
        trust,
        limits,
        unlisted,
        spool,
        journal,
        threads,
        stop,
        log,
        log_visits,
        warnings,
    })
}

fn read_admin_address(listen: &mut Section<'_>) -> Option<SocketAddr> {
    if !listen.has("admin") {
        listen.fault("admin", "is missing");
    }
    listen.parsed("admin", "an address such as \"127.0.0.1:9090\"", |text| text.parse().ok())
}

fn read_name_servers(dns: &mut Section<'_>) -> Option<Vec<SocketAddr>> {
    let texts = dns.texts("servers")?;
    if texts.is_empty() {
        dns.fault("servers", "name at least one, or leave it out for those of the system");
    }
    let parse = |text: &String| {
        text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
    };
    let mut servers = Vec::new();
    for text in &texts {
        match parse(text) {
            Ok(server) => servers.push(server),
            Err(_) => {
                dns.fault("servers", &format!("{text:?} is not an address such as 127.0.0.53:53"))
            }
        }
    }
    Some(servers)
}

fn read_public_url(root: &mut Section<'_>) -> Option<PublicUrl> {
    if !root.has("public_url") {
        root.fault("public_url", "is missing: the URL that Twilio was given");
    }
    root.parsed("public_url", "of the form https://host", |text| {
        PublicUrl::parse(text).ok().filter(|url| !url.authority().contains('@'))
    })
}

fn read_twilio(twilio: &mut Section<'_>) -> (Keyring, Option<SignaturePolicy>) {
    let mut keys = Keyring::default();
    if !twilio.has("account") {
        // Shared keys prove, but what is sent to an upstream is signed with an auth token.
        twilio.fault("account", "name at least one account with its auth token");
    }
    for mut account in twilio.list("account") {
        let sid = account.required("sid").and_then(|text| read_sid(&account, &text));
        let tokens = account.texts("auth_tokens").unwrap_or_default();
        if tokens.is_empty() {
            account.fault("auth_tokens", "name at least one, as \"env:NAME\" or \"file:PATH\"");
        }
        for token in tokens {
            let secret = account.resolve_secret("auth_tokens", &token);
            if let (Some(sid), Some(secret)) = (sid, secret) {
                keys.add_token(sid, &secret);
            }
        }
    }
    for mut shared in twilio.list("shared_key") {
        let id = shared.required("id");
        let secret = shared.has("secret").then(|| shared.secret("secret"));
        if secret.is_none() {
            shared.fault("secret", "is missing");
        }
        if let (Some(id), Some(Some(secret))) = (id, secret) {
            keys.add_shared_key(id, secret);
        }
    }
    (keys, read_signature_policy(twilio))
}

fn read_sid(account: &Section<'_>, text: &str) -> Option<AccountSid> {
    use secrecy::ExposeSecret as _;
    let text = match text.starts_with("env:") {
        true => account.resolve_secret("sid", text)?.expose_secret().to_owned(),
        false => text.to_owned(),
    };
    match text.parse() {
        Ok(sid) => Some(sid),
        Err(error) => {
            account.fault("sid", &error.to_string());
            None
        }
    }
}

fn read_signature_policy(twilio: &mut Section<'_>) -> Option<SignaturePolicy> {
    let report =
        twilio.choice("signature", &[("enforce", false), ("report", true)]).unwrap_or(false);
    let until = twilio.parsed("report_until", "a time such as \"2030-01-31T12:00:00Z\"", |text| {
        humantime::parse_rfc3339(text).ok()
    });
    match (report, until) {
        (false, None) => Some(SignaturePolicy::Enforce),
        (true, Some(until)) => Some(SignaturePolicy::ReportUntil(until)),
        (true, None) => {
            twilio.fault("report_until", "is missing: \"report\" is for a stated time only");
            None
        }
        (false, Some(_)) => {
            twilio.fault("report_until", "means nothing unless signature = \"report\"");
            None
        }
    }
}

fn read_catalogue(
    section: &mut Section<'_>,
    folder: &Path,
    source: Source<'_>,
) -> (Option<Catalogue>, Unlisted) {
    let unlisted = [("refuse", Unlisted::Refuse), ("pass", Unlisted::Pass)];
    let unlisted = section.choice("unlisted", &unlisted).unwrap_or(Unlisted::Refuse);
    let environment = BTreeMap::new();
    let read = |file: &str, table| {
        let source = Source { file, environment: &environment, ..source };
        rows::read(&mut Section::root(source, table))
    };
    let catalogue = match section.text("file") {
        None => match SHIPPED_CATALOGUE.parse() {
            Ok(table) => read("the shipped catalogue", table),
            Err(error) => {
                section.fault("file", &format!("the shipped catalogue is not TOML: {error}"));
                None
            }
        },
        Some(name) => {
            let path = folder.join(name);
            let file = path.display().to_string();
            read_table(&path, &file, source.faults).and_then(|table| read(&file, table))
        }
    };
    (catalogue, unlisted)
}

fn read_canned(section: &mut Section<'_>, folder: &Path) -> Option<CannedSet> {
    let overrides: Option<PathBuf> = section.text("folder").map(|name| folder.join(name));
    match CannedSet::load(overrides.as_deref()) {
        Ok(set) => Some(set),
        Err(faults) => {
            for fault in faults {
                section.fault("folder", &fault);
            }
            None
        }
    }
}

fn check_canned(root: &Section<'_>, catalogue: &Catalogue, canned: &CannedSet) {
    for row in catalogue.rows() {
        let Some(name) = &row.canned else { continue };
        let known = if row.kind == Kind::Media {
            canned.audio(name).is_some()
        } else {
            canned.document(name).is_some()
        };
        if !known {
            let what = format!(
                "there is no canned document {name:?}; there are {}",
                canned.names().join(", ")
            );
            root.fault(&format!("catalogue row {}", row.name), &what);
        }
    }
}

fn read_hold_keys(section: &mut Section<'_>, environment: Option<&str>) -> Option<HoldKeys> {
    let references = section.texts("keys").unwrap_or_default();
    if references.is_empty() {
        if environment != Some("development") {
            let missing = "name at least one key of 32 bytes in base64, shared by all edges";
            section.fault("keys", missing);
        }
        return None;
    }
    let mut secrets = Vec::new();
    for reference in &references {
        secrets.push(section.resolve_secret("keys", reference)?);
    }
    match HoldKeys::new(&secrets) {
        Ok(keys) => Some(keys),
        Err(why) => {
            section.fault("keys", why);
            None
        }
    }
}

fn read_stop(stop: &mut Section<'_>) -> Stop {
    let s = Duration::from_secs;
    Stop {
        drain: stop.duration_in("drain", s(10), s(0), s(300)),
        grace: stop.duration_in("grace", s(20), s(0), s(300)),
    }
}
