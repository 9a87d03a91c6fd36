-- What is reported of calls, and what the edge has answered in our name.

-- A lead's leg. What our own logic has decided (mapped_status) outweighs what Twilio says of it.
CREATE TABLE lead_calls (
    call_sid TEXT PRIMARY KEY,
    call_id TEXT,
    twilio_status TEXT,
    mapped_status TEXT,
    answered_by TEXT,
    duration_s INTEGER,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER
);

-- A transfer target's leg.
CREATE TABLE transfer_calls (
    call_sid TEXT PRIMARY KEY,
    transfer_id TEXT NOT NULL,
    twilio_status TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER
);

-- What a caller keyed as the answer to a question; once for each call, question and lead.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    call_sid TEXT NOT NULL,
    session_id INTEGER,
    question_id INTEGER NOT NULL,
    voter_id TEXT NOT NULL DEFAULT '',
    digits TEXT NOT NULL,
    possible_response_id INTEGER REFERENCES possible_responses (id),
    created_ms INTEGER NOT NULL,
    UNIQUE (call_sid, question_id, voter_id)
);

-- What the edge told us it has answered without us.
CREATE TABLE notices (
    id INTEGER PRIMARY KEY,
    what TEXT NOT NULL,
    catalogue_row TEXT NOT NULL,
    call_sid TEXT,
    delivery TEXT NOT NULL,
    visited_at TEXT NOT NULL,
    target TEXT NOT NULL,
    answered_by TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);

CREATE INDEX notices_by_call ON notices (call_sid);
