//! The table of endpoints: one row says all the edge needs to know of one path.
//!
//! A [`RowSpec`] is what somebody wrote; a [`Row`] is what passed the check, and a [`Catalogue`] is a
//! set of rows that do not contradict each other. Every fault of every row is reported at once.
//! Paths are matched as received: nothing is decoded, merged or normalised first, because what is
//! matched must be what is forwarded.

use std::fmt;
use std::time::Duration;

/// The whole of Twilio's patience (twilio.com/docs/usage/webhooks/webhooks-connection-overrides).
pub const TWILIO_LIMIT: Duration = Duration::from_secs(15);
/// The longest budget a row may have: a third of Twilio's limit may be gone before the first byte
/// arrives, when the first SYN was lost.
pub const LONGEST_BUDGET: Duration = Duration::from_secs(10);
/// The largest request body a row may allow.
pub const LARGEST_BODY: usize = 64 * 1024;

/// What kind of endpoint a row describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Twilio waits for TwiML.
    Synchronous,
    /// Twilio reports; any 2xx will do.
    Asynchronous,
    /// Twilio fetches audio.
    Media,
}

/// Who is on the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// A person who was called.
    Callee,
    /// A caller who uses nothing but a telephone.
    PhonesOnlyCaller,
    /// A caller who also has the browser page open.
    WebCaller,
}

/// What may follow a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Another attempt only if no byte was written.
    Unsent,
    /// Also if the upstream plainly did not run the request.
    Refused,
    /// Always, under the same delivery id, which the upstream honours.
    Idempotent,
}

/// A host that can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// The application that holds the call logic.
    Origin,
    /// The second host that can answer in its place.
    Monitor,
}

/// A row as written, before the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSpec {
    /// The row's name: the label of its metrics.
    pub name: String,
    /// Methods allowed, upper case.
    pub methods: Vec<String>,
    /// Path pattern, `/calls/{call_id}/incoming`.
    pub path: String,
    /// Query parameters without which the request means nothing.
    pub query: Vec<String>,
    /// What kind of endpoint it is.
    pub kind: Kind,
    /// Who may be on the phone.
    pub parties: Vec<Party>,
    /// How long a visit may take, from its first byte.
    pub budget: Duration,
    /// How large its body may be, in bytes.
    pub body_limit: usize,
    /// What may follow a failed attempt.
    pub replay: Replay,
    /// Whom to ask, in order.
    pub chain: Vec<Upstream>,
    /// The final canned document; for media the canned audio. None on asynchronous rows.
    pub canned: Option<String>,
    /// For how long a caller may be held before the final document is given. `None`: not at all.
    pub hold: Option<Duration>,
    /// Whether a canned answer loses something the caller said or keyed.
    pub saves: bool,
    /// Whether the application is told of what was answered without it. `None`: where the row saves
    /// or reaches a callee, and of late answers that nobody fetched.
    pub notices: Option<bool>,
}

/// A row that passed the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    spec: RowSpec,
}

/// Rows that do not contradict each other, and the way from a path to its row.
#[derive(Clone)]
pub struct Catalogue {
    rows: Vec<Row>,
    router: matchit::Router<usize>,
}

/// What the catalogue says of a method and path.
#[derive(Debug, Clone, Copy)]
pub enum Found<'c> {
    /// The row, and its index in [`Catalogue::rows`].
    Row(usize, &'c Row),
    /// The path is known, the method is not allowed on it.
    WrongMethod(&'c Row),
    /// The path is not listed.
    Unlisted,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row:?}: {what}")]
pub struct RowFault {
    /// The row's name.
    pub row: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

// === impl RowSpec ===

impl RowSpec {
    /// A valid synchronous row, for tests to vary.
    pub fn example() -> RowSpec {
        RowSpec {
            name: "example".into(),
            methods: vec!["POST".into()],
            path: "/example/{id}".into(),
            query: Vec::new(),
            kind: Kind::Synchronous,
            parties: vec![Party::PhonesOnlyCaller],
            budget: Duration::from_secs(9),
            body_limit: LARGEST_BODY,
            replay: Replay::Idempotent,
            chain: vec![Upstream::Origin, Upstream::Monitor],
            canned: Some("apology".into()),
            hold: None,
            saves: false,
            notices: None,
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut require = |fine: bool, what: &str| {
            if !fine {
                faults.push(what.to_owned());
            }
        };
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        require(
            !self.name.is_empty() && self.name.chars().all(word),
            "name: use lower-case letters, digits and underscores",
        );
        require(self.path.starts_with('/'), "path: must begin with /");
        require(
            !self.path.starts_with("/holdline/"),
            "path: below /holdline/ only the edge itself asks",
        );
        require(
            !self.methods.is_empty() && self.methods.iter().all(|m| METHODS.contains(&m.as_str())),
            "methods: use one or more of GET, HEAD and POST",
        );
        require(!self.chain.is_empty(), "chain: name at least one upstream");
        require(
            (1..self.chain.len()).all(|at| !self.chain[..at].contains(&self.chain[at])),
            "chain: name each upstream once",
        );
        require(
            self.budget > crate::deadline::RESERVE && self.budget <= LONGEST_BUDGET,
            "budget: must be above 250ms and at most 10s",
        );
        require(
            (1..=LARGEST_BODY).contains(&self.body_limit),
            "body_limit: must be between 1 byte and 64KiB",
        );
        match self.kind {
            Kind::Synchronous => {
                require(self.canned.is_some(), "canned: a synchronous row needs a document");
                require(!self.parties.is_empty(), "parties: say who is on the phone");
            }
            Kind::Asynchronous => {
                require(self.canned.is_none(), "canned: an asynchronous row takes none");
                require(
                    self.replay == Replay::Idempotent,
                    "replay: an asynchronous row must be idempotent, because it is delivered again",
                );
            }
            Kind::Media => {
                require(self.canned.is_some(), "canned: a media row needs audio");
            }
        }
        require(
            self.notices.is_none() || self.kind == Kind::Synchronous,
            "notices: only a synchronous row leaves them",
        );
        if self.saves {
            require(
                self.hold.is_some(),
                "saves: what a caller said must be held before it is given up; set hold",
            );
        }
        if self.hold.is_some() {
            require(self.kind == Kind::Synchronous, "hold: only a synchronous row can hold");
            require(
                self.methods == ["POST"],
                "hold: only a row that takes nothing but POST can hold; a query would show what was keyed",
            );
            require(
                !self.parties.contains(&Party::Callee),
                "hold: a callee who has just picked up is never held",
            );
        }
        faults
    }
}

const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

// === impl Row ===

impl Row {
    /// Checks `spec`; every fault is reported.
    pub fn new(spec: RowSpec) -> Result<Row, Vec<RowFault>> {
        let faults = spec.faults();
        if faults.is_empty() {
            return Ok(Row { spec });
        }
        let row = spec.name;
        Err(faults.into_iter().map(|what| RowFault { row: row.clone(), what }).collect())
    }

    /// Whether the application is told of a visit that was answered without it.
    pub fn tells_what_was_answered(&self) -> bool {
        let matters = self.spec.saves || self.spec.parties.contains(&Party::Callee);
        self.spec.kind == Kind::Synchronous && self.spec.notices.unwrap_or(matters)
    }

    /// Whether the application is told of an answer of its own that came late and was never fetched.
    pub fn tells_what_was_not_fetched(&self) -> bool {
        self.spec.kind == Kind::Synchronous && self.spec.notices.unwrap_or(true)
    }

    /// Whether every query parameter the row requires is there.
    pub fn has_required_query(&self, query: &str) -> bool {
        self.spec.query.iter().all(|name| {
            query.split('&').any(|pair| pair.split('=').next().is_some_and(|found| found == name))
        })
    }
}

/// A row reads as what was written; only making one is restricted.
impl std::ops::Deref for Row {
    type Target = RowSpec;
    fn deref(&self) -> &RowSpec {
        &self.spec
    }
}

// === impl Catalogue ===

impl Catalogue {
    /// Checks all rows, alone and together.
    pub fn new(specs: Vec<RowSpec>) -> Result<Catalogue, Vec<RowFault>> {
        let mut faults = Vec::new();
        let mut rows: Vec<Row> = Vec::with_capacity(specs.len());
        let mut router = matchit::Router::new();
        for spec in specs {
            let fault = |what: String| RowFault { row: spec.name.clone(), what };
            if rows.iter().any(|row| row.name == spec.name) {
                faults.push(fault("name: used by an earlier row".into()));
            }
            if let Err(conflict) = router.insert(spec.path.clone(), rows.len()) {
                faults.push(fault(format!("path: {conflict}")));
            }
            match Row::new(spec.clone()) {
                Ok(row) => rows.push(row),
                Err(mut more) => {
                    faults.append(&mut more);
                    rows.push(Row { spec });
                }
            }
        }
        if faults.is_empty() { Ok(Catalogue { rows, router }) } else { Err(faults) }
    }

    /// The rows, in the order written.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row for a method and a path (without its query), as received.
    pub fn find(&self, method: &str, path: &str) -> Found<'_> {
        let Ok(found) = self.router.at(path) else { return Found::Unlisted };
        let index = *found.value;
        match self.rows.get(index) {
            Some(row) if row.methods.iter().any(|allowed| allowed == method) => {
                Found::Row(index, row)
            }
            Some(row) => Found::WrongMethod(row),
            None => Found::Unlisted,
        }
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rows).finish()
    }
}

// === impl Upstream ===

impl Upstream {
    /// How many upstreams there can be.
    pub const COUNT: usize = 2;
    /// All of them, in the usual order.
    pub const ALL: [Upstream; Upstream::COUNT] = [Upstream::Origin, Upstream::Monitor];

    /// Its name in configuration, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Upstream::Origin => "origin",
            Upstream::Monitor => "monitor",
        }
    }

    /// Its place in a table with one entry an upstream.
    pub const fn index(self) -> usize {
        match self {
            Upstream::Origin => 0,
            Upstream::Monitor => 1,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Its name in configuration, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Synchronous => "synchronous",
            Kind::Asynchronous => "asynchronous",
            Kind::Media => "media",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: RowSpec, expect: &[&str]) {
        let got: Vec<String> = match Row::new(spec) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.to_string()).collect(),
        };
        assert_eq!(got, expect);
    }

    #[test]
    fn a_sound_row_passes() {
        check(RowSpec::example(), &[]);
    }

    #[test]
    fn every_fault_of_a_row_is_reported() {
        let spec = RowSpec {
            methods: vec!["PATCH".into()],
            path: "x".into(),
            chain: vec![Upstream::Origin, Upstream::Origin],
            budget: Duration::from_secs(15),
            body_limit: 0,
            canned: None,
            parties: Vec::new(),
            ..RowSpec::example()
        };
        check(
            spec,
            &[
                "row \"example\": path: must begin with /",
                "row \"example\": methods: use one or more of GET, HEAD and POST",
                "row \"example\": chain: name each upstream once",
                "row \"example\": budget: must be above 250ms and at most 10s",
                "row \"example\": body_limit: must be between 1 byte and 64KiB",
                "row \"example\": canned: a synchronous row needs a document",
                "row \"example\": parties: say who is on the phone",
            ],
        );
    }

    #[test]
    fn an_asynchronous_row_must_be_idempotent() {
        let spec = RowSpec {
            kind: Kind::Asynchronous,
            canned: None,
            replay: Replay::Refused,
            ..RowSpec::example()
        };
        check(
            spec,
            &[
                "row \"example\": replay: an asynchronous row must be idempotent, because it is delivered again",
            ],
        );
    }

    #[test]
    fn a_callee_is_never_held() {
        let spec = RowSpec {
            parties: vec![Party::Callee],
            hold: Some(Duration::from_secs(20)),
            ..RowSpec::example()
        };
        check(spec, &["row \"example\": hold: a callee who has just picked up is never held"]);
    }

    #[test]
    fn a_row_that_takes_get_does_not_hold() {
        let methods = vec!["GET".into(), "POST".into()];
        let spec = RowSpec { methods, hold: Some(Duration::from_secs(20)), ..RowSpec::example() };
        check(
            spec,
            &[
                "row \"example\": hold: only a row that takes nothing but POST can hold; a query would show what was keyed",
            ],
        );
    }

    #[test]
    fn rows_may_not_contradict_each_other() {
        let second = RowSpec { path: "/example/{other}".into(), ..RowSpec::example() };
        let faults = Catalogue::new(vec![RowSpec::example(), second]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn paths_are_matched_as_received() {
        let catalogue = Catalogue::new(vec![RowSpec::example()]).unwrap();
        assert!(matches!(catalogue.find("POST", "/example/7"), Found::Row(0, _)));
        assert!(matches!(catalogue.find("GET", "/example/7"), Found::WrongMethod(_)));
        for path in [
            "/example/",
            "/example/7/",
            "//example/7",
            "/Example/7",
            "/example/7/8",
            "/example%2F7",
            "*",
            "",
        ] {
            assert!(matches!(catalogue.find("POST", path), Found::Unlisted), "{path}");
        }
    }

    #[test]
    fn required_query_parameters_are_looked_for_by_name() {
        let spec = RowSpec { query: vec!["a".into(), "b".into()], ..RowSpec::example() };
        let row = Row::new(spec).unwrap();
        assert!(row.has_required_query("b=&x=1&a=2"));
        assert!(!row.has_required_query("ab=1&a=2"));
        assert!(!row.has_required_query(""));
    }
}
