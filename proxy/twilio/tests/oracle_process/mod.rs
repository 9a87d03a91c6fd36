//! Twilio's official Python library as a process beside the tests.
//!
//! `make setup` puts the library into `target/oracle`; `HOLDLINE_ORACLE` names another folder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A script that answers each line of JSON with another.
pub(crate) struct Oracle {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts a script of this folder's parent.
    pub(crate) fn start(script: &str) -> Oracle {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = std::env::var_os("HOLDLINE_ORACLE")
            .map_or_else(|| here.join("../../target/oracle"), PathBuf::from);
        assert!(
            library.join("twilio").exists(),
            "{} is missing: run `make setup`",
            library.display()
        );
        let mut child = Command::new("python3")
            .arg(here.join("tests").join(script))
            .env("PYTHONPATH", library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let asks = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Oracle { child, asks, answers }
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.asks, "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
