-- Everything the first endpoints need. Times are milliseconds since 1970.

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    provider_status TEXT NOT NULL,
    record_calls INTEGER NOT NULL DEFAULT 0,
    minutes_allowed INTEGER NOT NULL,
    minutes_used INTEGER NOT NULL DEFAULT 0,
    minutes_pending INTEGER NOT NULL DEFAULT 0,
    callers_allowed INTEGER NOT NULL,
    disable_calling INTEGER NOT NULL DEFAULT 0,
    disable_access INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE scripts (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL
);

CREATE TABLE questions (
    id INTEGER PRIMARY KEY,
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (script_id, position)
);

CREATE TABLE possible_responses (
    id INTEGER PRIMARY KEY,
    question_id INTEGER NOT NULL REFERENCES questions (id),
    keypad INTEGER NOT NULL,
    value TEXT NOT NULL,
    retry INTEGER NOT NULL DEFAULT 0,
    UNIQUE (question_id, keypad)
);

-- A campaign without hours is closed; equal hours mean all day.
CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('preview', 'power', 'predictive')),
    caller_id TEXT NOT NULL,
    script_id INTEGER NOT NULL REFERENCES scripts (id),
    start_hour INTEGER,
    end_hour INTEGER,
    time_zone TEXT NOT NULL,
    recycle_hours INTEGER NOT NULL DEFAULT 1,
    active INTEGER NOT NULL DEFAULT 1
);

CREATE TABLE callers (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    campaign_id INTEGER REFERENCES campaigns (id),
    name TEXT NOT NULL,
    pin TEXT NOT NULL UNIQUE,
    phones_only INTEGER NOT NULL,
    active INTEGER NOT NULL DEFAULT 1
);

-- One open browser page, with a PIN of its own.
CREATE TABLE caller_identities (
    id INTEGER PRIMARY KEY,
    caller_id INTEGER NOT NULL REFERENCES callers (id),
    session_key TEXT NOT NULL UNIQUE,
    pin TEXT NOT NULL UNIQUE
);

-- One caller's phone leg. The call identifies it: a repeated request finds it, and makes no second one.
CREATE TABLE caller_sessions (
    id INTEGER PRIMARY KEY,
    caller_id INTEGER NOT NULL REFERENCES callers (id),
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id),
    call_sid TEXT NOT NULL UNIQUE,
    session_key TEXT NOT NULL,
    phones_only INTEGER NOT NULL,
    caller_type TEXT NOT NULL,
    on_call INTEGER NOT NULL,
    status TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER
);

CREATE TABLE households (
    id INTEGER PRIMARY KEY,
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id),
    phone TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    UNIQUE (campaign_id, phone)
);

CREATE TABLE leads (
    id INTEGER PRIMARY KEY,
    household_id INTEGER NOT NULL REFERENCES households (id),
    first_name TEXT,
    last_name TEXT
);

-- What browsers are told, in order by channel.
CREATE TABLE browser_events (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (channel, sequence)
);

-- Every request that changed something, by delivery id, with what it was answered. A claim is a lease:
-- whoever finds one that has run out takes it over with the next fence, and whoever held it before
-- can no longer finish.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    fence INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    answer TEXT,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER
);

CREATE INDEX deliveries_by_age ON deliveries (created_ms);
