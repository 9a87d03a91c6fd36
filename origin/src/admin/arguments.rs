//! The words of `holdline-origin admin`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::phone::phone;
use crate::core::fit::Plan;
use crate::core::state::Mode;

/// To run a campaign: accounts, callers, campaigns, scripts, lists and results.
#[derive(Debug, Parser)]
#[command(bin_name = "holdline-origin admin", version)]
pub struct AdminArguments {
    /// The database: an SQLite file, made if it is not there, or mysql://USER:PASSWORD@HOST/NAME.
    #[arg(
        long,
        value_name = "FILE|URL",
        env = "HOLDLINE_ORIGIN_DATABASE",
        hide_env_values = true,
        global = true
    )]
    pub(super) database: Option<String>,
    #[command(subcommand)]
    pub(super) command: AdminCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Accounts: who pays, for how much, and for how many callers.
    #[command(subcommand)]
    Account(Account),
    /// Scripts: what is asked.
    #[command(subcommand)]
    Script(Script),
    /// Recordings that are left with machines.
    #[command(subcommand)]
    Recording(Recording),
    /// Campaigns: whom to call, when and how.
    #[command(subcommand)]
    Campaign(Campaign),
    /// Callers and their PINs.
    #[command(subcommand)]
    Caller(Caller),
    /// Lists of people to call.
    #[command(subcommand)]
    List(List),
    /// Numbers that must not be called.
    #[command(subcommand)]
    Block(Block),
    /// What came of the calls of a campaign, as CSV: a line for each.
    Results {
        /// The campaign.
        campaign: i64,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Account {
    /// Adds an account.
    Add {
        /// Its name.
        name: String,
        #[command(flatten)]
        terms: AccountTerms,
    },
    /// Changes an account.
    Set {
        /// The account.
        id: i64,
        #[command(flatten)]
        terms: AccountTerms,
    },
    /// Lists accounts.
    List,
}

/// What an account may do. What is not said stays, or is the smallest plan's.
#[derive(Debug, Args)]
pub(super) struct AccountTerms {
    /// trial, basic, pro, business, per_minute or enterprise.
    #[arg(long, value_parser = plan)]
    pub(super) plan: Option<String>,
    /// Whether the subscription is paid.
    #[arg(long)]
    pub(super) paid: Option<bool>,
    /// Minutes of calling, in all: those that were used among them.
    #[arg(long)]
    pub(super) minutes: Option<i64>,
    /// So many more minutes than now.
    #[arg(long, conflicts_with = "minutes")]
    pub(super) add_minutes: Option<i64>,
    /// Callers at once.
    #[arg(long)]
    pub(super) seats: Option<i64>,
    /// Whether talks are recorded.
    #[arg(long)]
    pub(super) record: Option<bool>,
    /// Whether calling is switched off.
    #[arg(long)]
    pub(super) disable_calling: Option<bool>,
    /// Whether everything is switched off: nobody signs in either.
    #[arg(long)]
    pub(super) disable_access: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Script {
    /// Adds a script from a TOML file: name, and [[question]] with text and [[question.response]] (key,
    /// value, retry).
    Import {
        /// The account.
        account: i64,
        /// The file.
        file: PathBuf,
    },
    /// Lists scripts with their questions.
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum Recording {
    /// Adds a recording that Twilio can fetch.
    Add {
        /// The account.
        account: i64,
        /// Its name.
        name: String,
        /// Its URL.
        url: url::Url,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Campaign {
    /// Adds a campaign.
    Add(Box<NewCampaign>),
    /// Changes when a campaign may be called.
    Hours {
        /// The campaign.
        id: i64,
        /// From and until which hour, as in 9-21; 21-6 spans midnight, 0-0 is all day.
        #[arg(value_parser = hours)]
        hours: (i64, i64),
    },
    /// Archives a campaign: it is called no more, and its callers have none.
    Archive {
        /// The campaign.
        id: i64,
    },
    /// Lists campaigns and where their numbers are.
    List,
}

/// A campaign to add.
#[derive(Debug, Args)]
pub(super) struct NewCampaign {
    /// The account.
    pub(super) account: i64,
    /// Its name.
    pub(super) name: String,
    /// How it dials.
    #[arg(long, value_enum)]
    pub(super) mode: ModeName,
    /// The number that is shown to those who are called.
    #[arg(long, value_parser = phone)]
    pub(super) caller_id: String,
    /// The script.
    #[arg(long)]
    pub(super) script: i64,
    /// From and until which hour, as in 9-21; 21-6 spans midnight, 0-0 is all day.
    #[arg(long, value_parser = hours)]
    pub(super) hours: (i64, i64),
    /// The zone of those hours, as in America/New_York.
    #[arg(long, value_parser = time_zone)]
    pub(super) time_zone: String,
    /// After how many hours a number may be called again.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub(super) recycle_hours: i64,
    /// Tells machines from people, and hangs up on them.
    #[arg(long)]
    pub(super) detect_machines: bool,
    /// A recording to leave.
    #[arg(long)]
    pub(super) recording: Option<i64>,
    /// Leaves the recording with every machine, once for each number.
    #[arg(long, requires_all = ["recording", "detect_machines"])]
    pub(super) leave_message: bool,
    /// Callers may leave the recording.
    #[arg(long, requires = "recording")]
    pub(super) drop_by_hand: bool,
    /// Calls again whom the recording was left for.
    #[arg(long)]
    pub(super) call_back_after_message: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ModeName {
    Preview,
    Power,
    Predictive,
}

#[derive(Debug, Subcommand)]
pub(super) enum Caller {
    /// Adds a caller; tells the id and the PIN.
    Add {
        /// The account.
        account: i64,
        /// The name.
        name: String,
        /// What for.
        #[arg(long)]
        campaign: Option<i64>,
        /// Has a browser beside the telephone.
        #[arg(long)]
        web: bool,
        /// Seven digits; without it some that nobody has.
        #[arg(long, value_parser = pin)]
        pin: Option<String>,
    },
    /// Gives a caller another campaign, or none. A caller on call is moved before the next number.
    Move {
        /// The caller.
        id: i64,
        /// The campaign.
        campaign: Option<i64>,
    },
    /// Lets a caller in no more, or again.
    Active {
        /// The caller.
        id: i64,
        /// Whether he may call.
        #[arg(action = clap::ArgAction::Set)]
        active: bool,
    },
    /// Lists callers with their PINs.
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum List {
    /// Adds people from a CSV file with a heading: phone, and if known custom_id, first_name, last_name;
    /// other columns are kept. Who has one number is one household; blocked numbers are kept and not called.
    Import {
        /// The campaign.
        campaign: i64,
        /// The file (- for standard input).
        file: PathBuf,
        /// Takes what can be read, and says what cannot.
        #[arg(long)]
        skip_faults: bool,
    },
    /// The people of a campaign, and how they stand, as CSV.
    Export {
        /// The campaign.
        campaign: i64,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Block {
    /// Blocks numbers.
    Add(Numbers),
    /// Takes that back; the numbers are called again after the next recycling.
    Remove(Numbers),
    /// Blocks the numbers of a file: one a line, or a CSV with a column phone.
    Import {
        /// The account.
        account: i64,
        /// The file (- for standard input).
        file: PathBuf,
        /// Only in this campaign.
        #[arg(long)]
        campaign: Option<i64>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Numbers {
    /// The account.
    pub(super) account: i64,
    /// The numbers.
    #[arg(required = true, value_parser = phone)]
    pub(super) numbers: Vec<String>,
    /// Only in this campaign.
    #[arg(long)]
    pub(super) campaign: Option<i64>,
}

/// Where a table is written.
#[derive(Debug, Args)]
pub(super) struct Out {
    /// A file; without it, standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

// === impl Out ===

impl Out {
    /// Opens it; a file is emptied.
    pub(super) fn open(&self) -> anyhow::Result<Box<dyn std::io::Write>> {
        Ok(match &self.out {
            Some(path) => Box::new(std::fs::File::create(path)?),
            None => Box::new(std::io::stdout().lock()),
        })
    }
}

// === impl ModeName ===

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Mode {
        match name {
            ModeName::Preview => Mode::Preview,
            ModeName::Power => Mode::Power,
            ModeName::Predictive => Mode::Predictive,
        }
    }
}

fn plan(text: &str) -> Result<String, String> {
    match Plan::named(text) {
        Plan::Unknown => {
            Err("write trial, basic, pro, business, per_minute or enterprise".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn hours(text: &str) -> Result<(i64, i64), String> {
    let hour = |text: &str, last: i64| {
        text.trim().parse::<i64>().ok().filter(|hour| (0..=last).contains(hour))
    };
    let hours =
        text.split_once('-').and_then(|(from, until)| Some((hour(from, 23)?, hour(until, 24)?)));
    hours.ok_or_else(|| "write two hours, as in 9-21; 0-0 is all day".to_owned())
}

fn time_zone(text: &str) -> Result<String, String> {
    let known = jiff::tz::TimeZone::get(text);
    known.map(|_| text.to_owned()).map_err(|_| "write a zone, as in America/New_York".to_owned())
}

fn pin(text: &str) -> Result<String, String> {
    let fits = text.len() == 7 && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("a PIN has seven digits".to_owned()) }
}
