//! Where an edge and what it keeps are: the little of a configuration that a tool needs, read without the
//! secrets that only the edge has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::faults::{FaultList, Faults};
use super::health::Judging;
use super::reader::{Section, Source};
use super::{own_environment, read_table};

/// Where an edge and what it keeps are.
#[derive(Debug)]
pub struct Reach {
    /// The spool's folder.
    pub folder: PathBuf,
    /// The admin plane's address.
    pub admin: Option<SocketAddr>,
    /// Its token, if it can be had here.
    pub token: Option<SecretString>,
    /// The journal's folder.
    pub journal: PathBuf,
    /// By what upstreams are judged.
    pub judging: Judging,
}

// === impl Reach ===

impl Reach {
    /// Reads `path`, with this process's environment. Of all that may be wrong with it only what is asked
    /// for counts.
    pub fn load(path: &Path) -> Result<Reach, FaultList> {
        let environment = own_environment();
        let file = path.display().to_string();
        let faults = Faults::default();
        let Some(table) = read_table(path, &file, &faults) else {
            faults.into_result()?;
            return Ok(Reach {
                folder: PathBuf::new(),
                admin: None,
                token: None,
                journal: PathBuf::new(),
                judging: Judging::SHIPPED,
            });
        };
        // The edge tells what else is wrong; here it would stand in the way.
        let ignored = Faults::default();
        let source = Source { file: &file, environment: &environment, faults: &ignored };
        let mut root = Section::root(source, table);
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Reach {
            folder: super::spool::read(&mut root.section("spool"), folder).folder,
            admin: root.section("listen").parsed("admin", "", |text| text.parse().ok()),
            token: root.section("admin").secret("token"),
            journal: super::journal::read(&mut root.section("journal"), folder, &mut Vec::new())
                .folder,
            judging: super::health::read(&mut root.section("health")).0,
        })
    }
}
