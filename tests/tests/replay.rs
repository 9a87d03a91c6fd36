//! What may follow a failed attempt: every cell of (replay class, what the origin did, fresh or reused
//! connection), on the wire.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, World};

/// One row of each class.
const ROWS: &str = r#"
[[row]]
name = "unsent"
path = "/unsent"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "unsent"
canned = "apology"
[[row]]
name = "refused"
path = "/refused"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "refused"
canned = "apology"
[[row]]
name = "idempotent"
path = "/idempotent"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "idempotent"
canned = "apology"
"#;

/// Who may be asked after the origin: for each class, in the order of the rows.
const CELLS: [(Part, [&str; 3]); 18] = {
    use Manner::*;
    const MAY_HAVE_RUN: [&str; 3] = ["canned", "canned", "monitor"];
    const DID_NOT_RUN: [&str; 3] = ["canned", "monitor", "monitor"];
    [
        (Part::Nothing, ["monitor"; 3]),
        (Part::StandIn(Answers), ["origin"; 3]),
        (Part::StandIn(NotRun), DID_NOT_RUN),
        (Part::StandIn(Status(521)), DID_NOT_RUN),
        (Part::StandIn(Status(523)), DID_NOT_RUN),
        (Part::StandIn(Status(525)), DID_NOT_RUN),
        (Part::StandIn(Status(526)), DID_NOT_RUN),
        (Part::StandIn(Status(500)), MAY_HAVE_RUN),
        (Part::StandIn(Status(502)), MAY_HAVE_RUN),
        (Part::StandIn(Status(503)), MAY_HAVE_RUN),
        (Part::StandIn(Status(504)), MAY_HAVE_RUN),
        (Part::StandIn(Status(520)), MAY_HAVE_RUN),
        (Part::StandIn(Status(522)), MAY_HAVE_RUN),
        (Part::StandIn(Status(404)), MAY_HAVE_RUN),
        (Part::StandIn(Status(204)), MAY_HAVE_RUN),
        (Part::StandIn(Html), MAY_HAVE_RUN),
        (Part::StandIn(BreaksOff), MAY_HAVE_RUN),
        (Part::StandIn(ResetsAfterReading), MAY_HAVE_RUN),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn what_may_follow_a_failed_attempt_is_decided_by_row_outcome_and_bytes() {
    for (origin, expected) in CELLS {
        for reused in [false, true] {
            check(origin, expected, reused).await;
        }
    }
}

async fn check(origin: Part, expected: [&str; 3], reused: bool) {
    let first = match origin {
        Part::StandIn(_) if reused => Part::StandIn(Manner::Answers),
        part => part,
    };
    let plan = World::plan(first, Part::StandIn(Manner::Answers));
    let world = plan.rows(ROWS).start().await.unwrap();
    if let (Some(stand_in), Part::StandIn(manner), true) = (&world.origin.stand_in, origin, reused)
    {
        // A row that may be repeated leaves its connection to those that come.
        visit(&world, "/idempotent", 99).await;
        stand_in.behave(manner);
    }
    for (n, (row, by)) in ["unsent", "refused", "idempotent"].iter().zip(expected).enumerate() {
        let seen = (world.origin.reached().len(), world.monitor.reached().len());
        let answered = visit(&world, &format!("/{row}"), n as u64).await;
        let what = format!("{origin:?}, {row}, reused: {reused}");
        assert_eq!(answered, by, "{what}");
        let at_origin = world.origin.reached().len() - seen.0;
        let at_monitor = world.monitor.reached().len() - seen.1;
        assert_eq!(at_monitor, usize::from(by == "monitor"), "{what}");
        if *row != "idempotent" {
            assert_eq!(at_origin, usize::from(origin != Part::Nothing), "{what}");
        }
    }
}

/// Who answered a visit.
async fn visit(world: &World, path: &str, n: u64) -> String {
    let fetched = world.post(path, &form(&call_sid(n), &[])).await;
    let received = fetched.result.expect("an answer");
    assert_eq!(received.status, 200);
    received.header("holdline-answered-by").expect("who answered").to_owned()
}
