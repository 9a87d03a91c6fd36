//! A sample account, so that a first call can be made without setting anything up.

use sqlx::Row as _;

use super::{Store, StoreError};

/// Everything, in one statement list: an account with funds and seats, a script with two questions, a
/// campaign a mode, callers of both kinds, one without a campaign, and leads in order.
const SAMPLE: &str = r"
INSERT INTO accounts (id, name, plan, provider_status, minutes_allowed, callers_allowed)
    VALUES (1, 'Sample', 'business', 'active', 1000000, 500);
INSERT INTO scripts (id, account_id, name) VALUES (1, 1, 'Opinion');
INSERT INTO questions (id, script_id, position, content) VALUES
    (1, 1, 0, 'How did the conversation go?'), (2, 1, 1, 'Will they come to the meeting?');
INSERT INTO possible_responses (id, question_id, keypad, value, retry) VALUES
    (1, 1, 0, 'no response', 0), (2, 1, 1, 'Great', 0), (3, 1, 2, 'Super', 0),
    (4, 2, 0, 'no response', 0), (5, 2, 1, 'Yes', 0), (6, 2, 2, 'No', 0);
INSERT INTO recordings (id, account_id, name, url) VALUES
    (1, 1, 'Sorry we missed you', 'http://127.0.0.1:8080/media/hold-music');
INSERT INTO campaigns (id, account_id, name, mode, caller_id, script_id, start_hour, end_hour, time_zone) VALUES
    (1, 1, 'Preview', 'preview', '5005550001', 1, 0, 0, 'UTC'),
    (2, 1, 'Power', 'power', '5005550002', 1, 0, 0, 'UTC'),
    (3, 1, 'Predictive', 'predictive', '5005550003', 1, 0, 0, 'UTC'),
    (4, 1, 'Worked off', 'preview', '5005550004', 1, 0, 0, 'UTC');
INSERT INTO callers (id, account_id, campaign_id, name, pin, phones_only) VALUES
    (1, 1, 1, 'Phones-only, preview', '1000001', 1),
    (2, 1, 2, 'Phones-only, power', '1000002', 1),
    (3, 1, 3, 'Phones-only, predictive', '1000003', 1),
    (4, 1, 1, 'Web, preview', '1000004', 0),
    (5, 1, 2, 'Web, power', '1000005', 0),
    (6, 1, 3, 'Web, predictive', '1000006', 0),
    (7, 1, NULL, 'Without a campaign', '1000007', 1),
    (8, 1, 4, 'Phones-only, nobody left to call', '1000008', 1);
INSERT INTO caller_identities (id, caller_id, session_key, pin) VALUES
    (1, 4, 'page-of-web-preview', '2000004'), (2, 5, 'page-of-web-power', '2000005'),
    (3, 6, 'page-of-web-predictive', '2000006');
INSERT INTO households (id, campaign_id, phone, sequence, place, score) VALUES
    (1, 1, '5005550101', 1, 'available', 1), (2, 1, '5005550102', 2, 'available', 2),
    (3, 2, '5005550103', 1, 'available', 1), (4, 2, '5005550105', 2, 'available', 2),
    (5, 3, '5005550104', 1, 'available', 1);
INSERT INTO leads (id, household_id, sequence, first_name, last_name) VALUES
    (1, 1, 1, 'Ann', 'Lee'), (2, 2, 1, 'Bo', 'Diaz'), (3, 3, 1, 'Cy', 'Okafor'),
    (4, 4, 1, 'Ed', 'Moreau'), (5, 5, 1, 'Di', 'Novak');
";

// === impl Store ===

impl Store {
    /// Adds the sample account to a store that has no account at all.
    pub async fn add_sample(&self) -> Result<bool, StoreError> {
        let mut writing = self.begin().await?;
        let count = sqlx::query("SELECT COUNT(*) FROM accounts");
        let accounts: i64 = count.fetch_one(writing.connection()).await?.try_get(0)?;
        if accounts > 0 {
            return Ok(false);
        }
        for statement in SAMPLE.split(";\n").map(str::trim).filter(|text| !text.is_empty()) {
            sqlx::query(statement).execute(writing.connection()).await?;
        }
        writing.commit().await?;
        Ok(true)
    }
}
