-- The whole store. Every statement means the same to SQLite and to MySQL: that is why there is no column
-- that counts by itself (ids are handed out in blocks, see `ids`), no text as a key that has no length, and
-- flags are numbers. Times are milliseconds since 1970.

-- The next free id of every kind of row. A process takes a block at a time.
CREATE TABLE ids (
    kind VARCHAR(32) NOT NULL PRIMARY KEY,
    next_id BIGINT NOT NULL
);
INSERT INTO ids (kind, next_id) VALUES ('all', 1000);

CREATE TABLE accounts (
    id BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(200) NOT NULL,
    plan VARCHAR(32) NOT NULL,
    provider_status VARCHAR(32) NOT NULL,
    record_calls BIGINT NOT NULL DEFAULT 0,
    minutes_allowed BIGINT NOT NULL,
    minutes_used BIGINT NOT NULL DEFAULT 0,
    minutes_pending BIGINT NOT NULL DEFAULT 0,
    callers_allowed BIGINT NOT NULL,
    disable_calling BIGINT NOT NULL DEFAULT 0,
    disable_access BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE scripts (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    name VARCHAR(200) NOT NULL,
    FOREIGN KEY (account_id) REFERENCES accounts (id)
);

CREATE TABLE questions (
    id BIGINT NOT NULL PRIMARY KEY,
    script_id BIGINT NOT NULL,
    position BIGINT NOT NULL,
    content VARCHAR(1000) NOT NULL,
    UNIQUE (script_id, position),
    FOREIGN KEY (script_id) REFERENCES scripts (id)
);

-- Every question has one on keypad 0, which is never read out.
CREATE TABLE possible_responses (
    id BIGINT NOT NULL PRIMARY KEY,
    question_id BIGINT NOT NULL,
    keypad BIGINT NOT NULL,
    value VARCHAR(200) NOT NULL,
    retry BIGINT NOT NULL DEFAULT 0,
    UNIQUE (question_id, keypad),
    FOREIGN KEY (question_id) REFERENCES questions (id)
);

CREATE TABLE recordings (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    name VARCHAR(200) NOT NULL,
    url VARCHAR(1000) NOT NULL,
    FOREIGN KEY (account_id) REFERENCES accounts (id)
);

-- A campaign without hours is closed; equal hours mean all day.
CREATE TABLE campaigns (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    name VARCHAR(200) NOT NULL,
    mode VARCHAR(16) NOT NULL CHECK (mode IN ('preview', 'power', 'predictive')),
    caller_id VARCHAR(20) NOT NULL,
    script_id BIGINT NOT NULL,
    start_hour BIGINT,
    end_hour BIGINT,
    time_zone VARCHAR(64) NOT NULL,
    recycle_hours BIGINT NOT NULL DEFAULT 1 CHECK (recycle_hours >= 1),
    detect_machines BIGINT NOT NULL DEFAULT 0,
    use_recordings BIGINT NOT NULL DEFAULT 0,
    recording_id BIGINT,
    drop_by_hand BIGINT NOT NULL DEFAULT 0,
    call_back_after_message BIGINT NOT NULL DEFAULT 0,
    active BIGINT NOT NULL DEFAULT 1,
    FOREIGN KEY (account_id) REFERENCES accounts (id),
    FOREIGN KEY (script_id) REFERENCES scripts (id)
);

CREATE TABLE callers (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    campaign_id BIGINT,
    name VARCHAR(200) NOT NULL,
    pin VARCHAR(16) NOT NULL UNIQUE,
    phones_only BIGINT NOT NULL,
    active BIGINT NOT NULL DEFAULT 1,
    FOREIGN KEY (account_id) REFERENCES accounts (id)
);

-- One open browser page, with a PIN of its own.
CREATE TABLE caller_identities (
    id BIGINT NOT NULL PRIMARY KEY,
    caller_id BIGINT NOT NULL,
    session_key VARCHAR(64) NOT NULL UNIQUE,
    pin VARCHAR(16) NOT NULL UNIQUE
);

-- One caller's phone leg. The call identifies it: a repeated request finds it, and makes no second one.
-- What is going on with it is its stage; who is called, or offered, are the lead call and the household.
-- The turn counts how often it was led out of its conference.
CREATE TABLE caller_sessions (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    caller_id BIGINT NOT NULL,
    campaign_id BIGINT NOT NULL,
    call_sid VARCHAR(34) NOT NULL UNIQUE,
    session_key VARCHAR(64) NOT NULL,
    phones_only BIGINT NOT NULL,
    caller_type VARCHAR(32) NOT NULL,
    on_call BIGINT NOT NULL,
    stage VARCHAR(16) NOT NULL,
    household_id BIGINT,
    lead_call_id BIGINT,
    turn BIGINT NOT NULL DEFAULT 0,
    waiting_since_ms BIGINT,
    started_ms BIGINT NOT NULL,
    changed_ms BIGINT NOT NULL,
    checked_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    duration_s BIGINT,
    charged_minutes BIGINT
);

CREATE INDEX caller_sessions_by_account ON caller_sessions (account_id, on_call);
CREATE INDEX caller_sessions_by_key ON caller_sessions (session_key, on_call);
CREATE INDEX caller_sessions_by_campaign ON caller_sessions (campaign_id, stage, waiting_since_ms);
CREATE INDEX caller_sessions_by_check ON caller_sessions (on_call, checked_ms);
CREATE INDEX caller_sessions_by_household ON caller_sessions (household_id, on_call);
CREATE INDEX caller_sessions_by_charge ON caller_sessions (charged_minutes, ended_ms);

-- A telephone number of a campaign. It is in one place of the dial queue; the score says who is next
-- there: the sequence at first, then when it was handed out last.
CREATE TABLE households (
    id BIGINT NOT NULL PRIMARY KEY,
    campaign_id BIGINT NOT NULL,
    phone VARCHAR(20) NOT NULL,
    sequence BIGINT NOT NULL,
    place VARCHAR(16) NOT NULL
        CHECK (place IN ('available', 'presented', 'bin', 'blocked', 'completed', 'failed')),
    score BIGINT NOT NULL,
    blocked BIGINT NOT NULL DEFAULT 0,
    status VARCHAR(40) NOT NULL DEFAULT 'not called',
    message_left BIGINT NOT NULL DEFAULT 0,
    UNIQUE (campaign_id, phone)
);

CREATE INDEX households_by_phone ON households (phone);
CREATE INDEX households_by_place ON households (campaign_id, place, score, sequence);

CREATE TABLE leads (
    id BIGINT NOT NULL PRIMARY KEY,
    household_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    custom_id VARCHAR(200),
    first_name VARCHAR(200),
    last_name VARCHAR(200),
    fields VARCHAR(4000) NOT NULL DEFAULT '{}',
    status VARCHAR(40) NOT NULL DEFAULT 'not called',
    completed BIGINT NOT NULL DEFAULT 0,
    dispositioned BIGINT NOT NULL DEFAULT 0,
    call_back BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX leads_by_household ON leads (household_id, sequence);

-- Numbers that must not be called: of one campaign, or (0) of the whole account.
CREATE TABLE blocked_numbers (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL,
    campaign_id BIGINT NOT NULL DEFAULT 0,
    phone VARCHAR(20) NOT NULL,
    UNIQUE (account_id, campaign_id, phone)
);

-- One dial of a household and the leg it made. It is there before Twilio is asked, so that whatever is
-- reported of the leg finds it, however early it comes.
CREATE TABLE lead_calls (
    id BIGINT NOT NULL PRIMARY KEY,
    campaign_id BIGINT NOT NULL,
    household_id BIGINT NOT NULL,
    lead_id BIGINT NOT NULL,
    session_id BIGINT,
    phone VARCHAR(20) NOT NULL,
    call_sid VARCHAR(34) UNIQUE,
    stage VARCHAR(16) NOT NULL,
    decision VARCHAR(16),
    outcome VARCHAR(40),
    given_up BIGINT NOT NULL DEFAULT 0,
    settled BIGINT NOT NULL DEFAULT 0,
    twilio_status VARCHAR(20),
    answered_by VARCHAR(32),
    duration_s BIGINT,
    recording_url VARCHAR(1000),
    recording_s BIGINT,
    created_ms BIGINT NOT NULL,
    dialed_ms BIGINT,
    answered_ms BIGINT,
    connected_ms BIGINT,
    ended_ms BIGINT,
    checked_ms BIGINT NOT NULL,
    charged_minutes BIGINT
);

CREATE INDEX lead_calls_by_household ON lead_calls (household_id);
CREATE INDEX lead_calls_by_campaign ON lead_calls (campaign_id, stage);
CREATE INDEX lead_calls_by_check ON lead_calls (stage, checked_ms);
CREATE INDEX lead_calls_by_charge ON lead_calls (charged_minutes, ended_ms);

-- What was keyed as the answer to a question; once for each lead call and question.
CREATE TABLE answers (
    id BIGINT NOT NULL PRIMARY KEY,
    lead_call_id BIGINT NOT NULL,
    question_id BIGINT NOT NULL,
    lead_id BIGINT NOT NULL,
    digits VARCHAR(32) NOT NULL,
    possible_response_id BIGINT,
    created_ms BIGINT NOT NULL,
    UNIQUE (lead_call_id, question_id)
);

CREATE INDEX answers_by_lead ON answers (lead_id);

-- What has to be asked of Twilio. It is written with the change that calls for it, and done later: by
-- whoever claims it, for as long as the lease lasts.
CREATE TABLE outbox (
    id BIGINT NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,
    subject_id BIGINT NOT NULL,
    due_ms BIGINT NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL,
    sent_ms BIGINT,
    done_ms BIGINT,
    last_error VARCHAR(500)
);

CREATE INDEX outbox_by_due ON outbox (done_ms, due_ms);

-- What browsers are told, in order by channel.
CREATE TABLE browser_events (
    id BIGINT NOT NULL PRIMARY KEY,
    channel VARCHAR(64) NOT NULL,
    sequence BIGINT NOT NULL,
    name VARCHAR(64) NOT NULL,
    data TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    UNIQUE (channel, sequence)
);

CREATE INDEX browser_events_by_age ON browser_events (created_ms);

-- Every request that changed something, by delivery id, with what it was answered. A claim is a lease:
-- whoever finds one that has run out takes it over with the next fence, and whoever held it before
-- can no longer finish.
CREATE TABLE deliveries (
    id VARCHAR(80) NOT NULL PRIMARY KEY,
    fence BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    answer TEXT,
    created_ms BIGINT NOT NULL,
    finished_ms BIGINT
);

CREATE INDEX deliveries_by_age ON deliveries (created_ms);

-- What the edge told us it has answered without us.
CREATE TABLE notices (
    id BIGINT NOT NULL PRIMARY KEY,
    what VARCHAR(64) NOT NULL,
    catalogue_row VARCHAR(64) NOT NULL,
    call_sid VARCHAR(34),
    delivery VARCHAR(80) NOT NULL,
    visited_at VARCHAR(40) NOT NULL,
    target TEXT NOT NULL,
    answered_by VARCHAR(32) NOT NULL,
    answer TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE INDEX notices_by_call ON notices (call_sid);
CREATE INDEX notices_by_age ON notices (created_ms);

-- A transfer target's leg, as it was reported.
CREATE TABLE transfer_calls (
    call_sid VARCHAR(34) NOT NULL PRIMARY KEY,
    transfer_id VARCHAR(64) NOT NULL,
    twilio_status VARCHAR(20) NOT NULL,
    ended_ms BIGINT NOT NULL
);

CREATE INDEX transfer_calls_by_age ON transfer_calls (ended_ms);
