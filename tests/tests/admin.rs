//! Running a campaign without touching the database: `holdline-origin admin`, and claims that hold
//! however many come at once, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use holdline_tests::campaign::{on_mariadb, on_sqlite};
use holdline_tests::spoken::{ask, gather, path_of, said};
use holdline_tests::world::{Place, call_sid};
use holdline_tests::{Part, World};
use holdline_twilio::Form;

/// A campaign in preview mode; account, campaign.
async fn campaign(world: &World) -> (String, String) {
    let terms = ["--plan", "enterprise"];
    let account = world.admin(&[&["account", "add", "A"][..], &terms].concat()).await.unwrap();
    let script = world.folder().join("script.toml");
    std::fs::write(&script, "name = \"S\"").unwrap();
    let script = script.display().to_string();
    let script = world.admin(&["script", "import", &account, &script]).await.unwrap();
    let campaign = world
        .admin(&[
            "campaign",
            "add",
            &account,
            "C",
            "--mode",
            "preview",
            "--caller-id",
            "(500) 555-0001",
            "--script",
            &script,
            "--hours",
            "0-0",
            "--time-zone",
            "Europe/Berlin",
        ])
        .await
        .unwrap();
    (account, campaign)
}

async fn place(world: &World, phone: &str) -> String {
    let select = format!("SELECT place FROM households WHERE phone = '{phone}'");
    world.column(&select).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_list_with_faults_is_not_taken_and_every_fault_is_named() {
    let world = World::start(Part::Real, Part::Nothing).await.unwrap();
    let (_, campaign) = campaign(&world).await;
    let list = "Phone,First Name,party\n500-555-0101,Ann,blue\n12,Bo,\nnone,Cy,\n500-555-0102,Di,red,extra\n\
                500-555-0103,=HYPERLINK(1),\n";
    let refused = world.try_admin(&["list", "import", &campaign, "-"], list).await.unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    for fault in ["3 lines", "line 3: ", "line 4: ", "line 5: ", "--skip-faults"] {
        assert!(refused.err.contains(fault), "{fault}: {}", refused.err);
    }
    let households = format!("SELECT COUNT(*) FROM households WHERE campaign_id = {campaign}");
    assert_eq!(world.count(&households).await.unwrap(), 0);
    let taken = ["list", "import", &campaign, "-", "--skip-faults"];
    let taken = world.try_admin(&taken, list).await.unwrap();
    assert_eq!((taken.code, world.count(&households).await.unwrap()), (0, 2), "{taken:?}");
    let exported = world.admin(&["list", "export", &campaign]).await.unwrap();
    assert!(
        exported.contains("5005550101,available,not called,,Ann,") && exported.contains("blue"),
        "{exported}"
    );
    // What a spreadsheet would run is text.
    assert!(exported.contains(",'=HYPERLINK(1),"), "{exported}");
    // A file whose columns have no name.
    let refused =
        world.try_admin(&["list", "import", &campaign, "-"], "5005550101,Ann\n").await.unwrap();
    assert!(refused.code == 1 && refused.err.contains("one of them be phone"), "{refused:?}");
    for wrong in [
        vec!["campaign", "hours", &campaign, "9"],
        vec!["campaign", "hours", "77", "9-21"],
        vec!["list", "import", "77", "-"],
        vec!["results", "77"],
        vec!["caller", "add", "77", "X"],
        vec!["caller", "add", "1", "X", "--campaign", &campaign],
        vec!["caller", "add", "1", "X", "--pin", "1000001"],
    ] {
        let refused = world.try_admin(&wrong, "phone\n").await.unwrap();
        assert!(refused.code != 0 && !refused.err.is_empty(), "{wrong:?}: {refused:?}");
    }
}

#[tokio::test]
async fn blocked_numbers_are_kept_and_not_called() {
    let world = World::start(Part::Real, Part::Nothing).await.unwrap();
    let (account, campaign) = campaign(&world).await;
    let blocked = world.folder().join("dnc.csv");
    std::fs::write(&blocked, "phone,why\n(500) 555-0102,asked\n500 555 0199,asked\n").unwrap();
    let blocked = blocked.display().to_string();
    let said = world.admin(&["block", "import", &account, &blocked]).await.unwrap();
    assert!(said.starts_with("2 numbers blocked; 0 households"), "{said}");
    let list = "phone,custom_id\n5005550171,1\n5005550102,2\n5005550173,3\n";
    let import = ["list", "import", &campaign, "-"];
    let said = world.try_admin(&import, list).await.unwrap().out;
    assert!(
        said.contains("3 numbers with 3 people added") && said.contains("1 numbers blocked"),
        "{said}"
    );
    // The same list again: nobody is there twice.
    let said = world.try_admin(&import, list).await.unwrap().out;
    assert!(said.contains("0 numbers with 0 people added, 3 people known"), "{said}");
    assert_eq!(place(&world, "5005550171").await, "available");
    world
        .admin(&["block", "add", &account, "+15005550171", "--campaign", &campaign])
        .await
        .unwrap();
    assert_eq!(place(&world, "5005550171").await, "blocked");
    // Blocked twice over, it is free when both blocks are gone, and not before the next recycling.
    world.admin(&["block", "add", &account, "5005550171"]).await.unwrap();
    world.admin(&["block", "remove", &account, "5005550171"]).await.unwrap();
    assert_eq!(place(&world, "5005550171").await, "blocked");
    world
        .admin(&["block", "remove", &account, "5005550171", "--campaign", &campaign])
        .await
        .unwrap();
    assert_eq!(place(&world, "5005550171").await, "bin");
    // A number that nobody has: nothing is planted anywhere.
    world.admin(&["block", "remove", &account, "5005550199"]).await.unwrap();
    let planted = "SELECT COUNT(*) FROM households WHERE phone = '5005550199'";
    assert_eq!(world.count(planted).await.unwrap(), 0);
    // Somebody new at a number that is done with: it is called again, when its time has come.
    world
        .sql("UPDATE households SET place = 'completed' WHERE phone = '5005550173'")
        .await
        .unwrap();
    world.try_admin(&import, "phone,custom_id\n5005550173,4\n").await.unwrap();
    assert_eq!(place(&world, "5005550173").await, "bin");
}

#[tokio::test]
async fn a_campaign_that_is_archived_is_called_no_more() {
    let world = World::start(Part::Real, Part::Nothing).await.unwrap();
    let verbs = ask(&world, "/identify_caller?attempt=1", 1, &[("Digits", "1000001")]).await;
    let menu = path_of(&gather(&verbs[0]).action.url).to_owned();
    world.admin(&["campaign", "archive", "1"]).await.unwrap();
    let verbs = ask(&world, &menu, 1, &[("Digits", "*")]).await;
    assert!(said(&verbs[0]).contains("nobody has given you a campaign"), "{verbs:?}");
    let verbs = ask(&world, "/identify_caller?attempt=1", 2, &[("Digits", "1000001")]).await;
    assert!(said(&verbs[0]).contains("nobody has given you a campaign"), "{verbs:?}");
    world.admin(&["caller", "active", "2", "false"]).await.unwrap();
    let verbs = ask(&world, "/identify_caller?attempt=3", 3, &[("Digits", "1000002")]).await;
    assert!(said(&verbs[0]).contains("not recognised"), "{verbs:?}");
}

/// What an upstream answers; one that says it is too busy to run it is asked again, as the edge does.
async fn answer_of(world: &World, place: &Place, path: &str, form: &Form) -> String {
    loop {
        let received = world.post_to(place, path, form).await.result.unwrap();
        match (received.status, received.header("holdline-not-run")) {
            (200, _) => return String::from_utf8_lossy(&received.body).into_owned(),
            (503, Some("1")) => {}
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// Many callers ask for a number in the same moment, of origin and monitor: each gets one of their own.
async fn numbers_are_handed_out_once(world: &World) {
    const CALLERS: usize = 40;
    let (account, campaign) = campaign(world).await;
    let mut list = "phone\n".to_owned();
    for n in 0..CALLERS - 5 {
        writeln!(list, "50055{n:05}").unwrap();
    }
    world.try_admin(&["list", "import", &campaign, "-"], &list).await.unwrap();
    let caller =
        world.admin(&["caller", "add", &account, "X", "--campaign", &campaign]).await.unwrap();
    let pin = caller.split_once('\t').unwrap().1.to_owned();
    let keyed = [("Digits", pin.as_str())];
    let start = futures::future::join_all(
        (0..CALLERS).map(|n| ask(world, "/identify_caller?attempt=1", 1000 + n as u64, &keyed)),
    );
    let menus: Vec<String> =
        start.await.iter().map(|verbs| path_of(&gather(&verbs[0]).action.url).to_owned()).collect();
    let offers = futures::future::join_all(menus.iter().enumerate().map(async |(n, menu)| {
        let place = if n % 2 == 0 { &world.origin } else { &world.monitor };
        let keyed = holdline_tests::world::form(&call_sid(1000 + n as u64), &[("Digits", "*")]);
        answer_of(world, place, menu, &keyed).await
    }))
    .await;
    let phone = |offer: &String| {
        let (_, rest) = offer.split_once("phone=")?;
        Some(rest.split('"').next()?.to_owned())
    };
    let phones: Vec<String> = offers.iter().filter_map(phone).collect();
    let distinct: BTreeSet<&String> = phones.iter().collect();
    assert_eq!((phones.len(), distinct.len()), (CALLERS - 5, CALLERS - 5), "{offers:?}");
    let nobody = offers.iter().filter(|offer| offer.contains("nobody left to call")).count();
    assert_eq!(nobody, 5, "{offers:?}");
}

#[tokio::test]
async fn numbers_are_handed_out_once_on_sqlite() {
    numbers_are_handed_out_once(&on_sqlite().await).await;
}

#[tokio::test]
async fn numbers_are_handed_out_once_on_mariadb() {
    let (world, _database) = on_mariadb().await;
    numbers_are_handed_out_once(&world).await;
}

/// Two processes are asked the same, in the same moment, many times: each is done once.
async fn what_comes_twice_is_done_once(world: &World) {
    let pin = [("Digits", "1000001")];
    for n in 0..20 {
        let form = holdline_tests::world::form(&call_sid(n), &pin);
        let (first, second) = tokio::join!(
            answer_of(world, &world.origin, "/identify_caller?attempt=1", &form),
            answer_of(world, &world.monitor, "/identify_caller?attempt=1", &form)
        );
        assert_eq!(first, second, "{n}");
    }
    assert_eq!(world.count("SELECT COUNT(*) FROM caller_sessions").await.unwrap(), 20);
}

#[tokio::test]
async fn what_comes_twice_is_done_once_on_mariadb() {
    let (world, _database) = on_mariadb().await;
    what_comes_twice_is_done_once(&world).await;
}
