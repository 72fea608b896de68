-- The ledger: few things, each guarded; no row text. Facts that are true of every row live in Parquet segments beside
-- their chunk and count only once a row here names them with their digest. Times are RFC 3339, UTC.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE run (
  id            TEXT PRIMARY KEY,
  job           TEXT NOT NULL,
  number        INTEGER NOT NULL,
  created_at    TEXT NOT NULL,
  job_file      TEXT NOT NULL,             -- relative to the workspace's parent
  source        TEXT NOT NULL,             -- display names, JSON
  source_stamp  TEXT NOT NULL,             -- names and statuses of its files: the same stamp, nothing to read
  rows_sha256   TEXT NOT NULL,             -- over all rows as read: the same rows, the same run
  shape_sha256  TEXT NOT NULL,             -- everything `prepare` depends on but the source: same shape, same source, same run
  settings      TEXT NOT NULL,             -- first settings
  seen          INTEGER NOT NULL,          -- rows in the source
  rejected      INTEGER NOT NULL,
  known         INTEGER NOT NULL,          -- rows an earlier run has already: not part of this run
  withdrawn     INTEGER NOT NULL DEFAULT 0,
  stopped       INTEGER NOT NULL DEFAULT 0,  -- cancelled by a person: waiting chunks are sent only by `submit`
  lane          TEXT,                        -- the lane that was asked for or chosen; null: the job file says
  budget        TEXT,                        -- JSON: the amount a person gave for this run, and what the job file said then
  risk          TEXT,                        -- what was done when the deadline came near: wait, live-tail, tailed, stop
  purging           TEXT,                    -- what is being purged: inputs, outputs or both; a crash left it half done
  inputs_purged_at  TEXT,                    -- row texts are gone: request files, and the rows in segments
  outputs_purged_at TEXT,                    -- answers are gone: result files, and the answers in segments
  remote_purged_at  TEXT,                    -- staged and result files at the provider are deleted
  UNIQUE (job, number)
) STRICT;

CREATE TABLE settings (                    -- what was sent with: prompt, schema, model, params
  sha256         TEXT NOT NULL,
  run            TEXT NOT NULL REFERENCES run (id),
  directory      TEXT NOT NULL,            -- relative to the run directory
  provider       TEXT NOT NULL,
  model          TEXT NOT NULL,
  endpoint       TEXT NOT NULL,
  prompt_version TEXT,
  prompt_sha256  TEXT NOT NULL,
  schema_version TEXT,
  schema_sha256  TEXT,
  PRIMARY KEY (run, sha256)
) STRICT;

CREATE TABLE chunk (
  run             TEXT NOT NULL REFERENCES run (id),
  number          INTEGER NOT NULL,
  attempt         INTEGER NOT NULL,
  state           TEXT NOT NULL,
  lane            TEXT NOT NULL DEFAULT 'batch',  -- batch, live, background: how it was sent
  canary          INTEGER NOT NULL DEFAULT 0,     -- a first small batch, which shows whether the batch API takes the rest
  settings        TEXT NOT NULL,
  mark            TEXT NOT NULL,           -- the first eight characters of its custom_ids
  sha256          TEXT NOT NULL,           -- of chunks/NNNN.jsonl
  bytes           INTEGER NOT NULL,
  rows_sha256     TEXT NOT NULL,           -- of chunks/NNNN.rows.parquet
  copies_sha256   TEXT,                    -- of chunks/NNNN.copies.parquet, if there are copies
  requests        INTEGER NOT NULL,
  copies          INTEGER NOT NULL,
  first_position  INTEGER NOT NULL,
  last_position   INTEGER NOT NULL,        -- copies not counted
  staged          TEXT,                    -- handle of the uploaded input, while the chunk is `uploaded`
  results_sha256  TEXT,                    -- JSON: file name to digest
  verdicts_sha256 TEXT,
  published       TEXT,                    -- the verdicts whose completed rows every target has
  judged_with     TEXT,                    -- digest of schema and judging settings
  usage           TEXT,                    -- JSON: token sums
  bound           INTEGER,                 -- picodollars its requests can cost at most; set before it is sent
  cost            INTEGER,                 -- picodollars booked for it; null before judging, or without a price
  unmetered       INTEGER NOT NULL DEFAULT 0,  -- requests that may be billed and whose tokens nobody has told us
  note            TEXT,
  PRIMARY KEY (run, number)
) STRICT;

CREATE TABLE tally (                       -- rows of an applied chunk that no newer chunk has taken over
  run    TEXT NOT NULL,
  chunk  INTEGER NOT NULL,
  state  TEXT NOT NULL,
  reason TEXT NOT NULL,
  rows   INTEGER NOT NULL CHECK (rows >= 0),
  copied INTEGER NOT NULL CHECK (copied >= 0),
  PRIMARY KEY (run, chunk, state, reason),
  FOREIGN KEY (run, chunk) REFERENCES chunk (run, number)
) STRICT;

CREATE TABLE share (                       -- completed rows for which the `where` of a share rule holds, as last judged
  run   TEXT NOT NULL,
  chunk INTEGER NOT NULL,
  rule  TEXT NOT NULL,
  rows  INTEGER NOT NULL CHECK (rows >= 0),
  PRIMARY KEY (run, chunk, rule),
  FOREIGN KEY (run, chunk) REFERENCES chunk (run, number)
) STRICT;

CREATE TABLE decision (                    -- what a person decided about one row; the newest that is not undone counts
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  run       TEXT NOT NULL,
  chunk     INTEGER NOT NULL,              -- the chunk whose answer it is about
  position  INTEGER NOT NULL,              -- of the row in the source
  action    TEXT NOT NULL,                 -- accept, reject, edit
  by        TEXT NOT NULL,
  at        TEXT NOT NULL,
  edit      TEXT,                          -- name of the file in review/ that holds note and edited answer
  sha256    TEXT,                          -- of that file
  undone_at TEXT,
  FOREIGN KEY (run, chunk) REFERENCES chunk (run, number)
) STRICT;
CREATE UNIQUE INDEX one_decision ON decision (run, chunk, position) WHERE undone_at IS NULL;

CREATE TABLE intent (                      -- one try to create one batch
  id            TEXT PRIMARY KEY,
  run           TEXT NOT NULL,
  chunk         INTEGER NOT NULL,
  send          INTEGER NOT NULL,
  state         TEXT NOT NULL,             -- open, accepted, refused, absent, failed, abandoned
  staged        TEXT NOT NULL,
  account       TEXT NOT NULL,
  sha256        TEXT NOT NULL,
  created_at    TEXT NOT NULL,
  created_epoch INTEGER NOT NULL,          -- by the clock of the provider, 0 when it was not known; of live calls, by ours
  fenced        INTEGER NOT NULL DEFAULT 0,
  empty_lists   INTEGER NOT NULL DEFAULT 0,
  empty_since   REAL,                      -- Unix seconds of the first empty list after the fence
  batch_id      TEXT UNIQUE,
  vendor_status TEXT,
  counts        TEXT,
  usage         TEXT,                      -- JSON: the provider's own token total of the batch, once it ended
  sent_at       TEXT,
  ended_at      TEXT,
  expired       INTEGER NOT NULL DEFAULT 0,  -- the batch ended because its time was over
  note          TEXT,
  FOREIGN KEY (run, chunk) REFERENCES chunk (run, number)
) STRICT;
CREATE UNIQUE INDEX one_live_intent ON intent (run, chunk) WHERE state IN ('open', 'accepted');

CREATE TABLE dry_run (
  run        TEXT NOT NULL,
  settings   TEXT NOT NULL,
  at         TEXT NOT NULL,
  epoch      INTEGER NOT NULL,
  rows       INTEGER NOT NULL,
  valid      INTEGER NOT NULL,
  min_valid  REAL NOT NULL,
  passed     INTEGER NOT NULL,
  report     TEXT NOT NULL
) STRICT;

CREATE TABLE price (                       -- what was booked with: frozen when first needed, so that books do not move
  run      TEXT NOT NULL REFERENCES run (id),
  settings TEXT NOT NULL,
  lane     TEXT NOT NULL,                  -- batch, live
  price    TEXT NOT NULL,                  -- JSON: rates in picodollars a token, source, date
  PRIMARY KEY (run, settings, lane)
) STRICT;

CREATE TABLE live_call (                   -- one paid synchronous call, on record before it leaves
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  run      TEXT NOT NULL REFERENCES run (id),
  settings TEXT NOT NULL,
  chunk    INTEGER,                        -- null for a dry run
  key      TEXT NOT NULL,                  -- custom_id; of a dry run the digest of the request body
  purpose  TEXT NOT NULL,                  -- dry-run, live, background
  at       TEXT NOT NULL,
  state    TEXT NOT NULL,                  -- open, running (in background), answered, untold (answered, without tokens),
                                           -- declined (answered with an error, not billed), refused (not acted upon: may be
                                           -- made again), lost; by a person: absent (never sent), abandoned
  bound    INTEGER,                        -- picodollars it can cost at most; null without a price
  cost     INTEGER,                        -- picodollars booked; null while open or lost, or without a price
  usage    TEXT,                           -- JSON: tokens
  handle   TEXT                            -- the provider's id of a background request
) STRICT;
CREATE INDEX live_call_of_run ON live_call (run, key);

CREATE TABLE publication (                 -- one content for one target, on record before the target is touched
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  id        TEXT NOT NULL,                 -- digest of the target, the columns and the verdicts that go there
  turn      INTEGER NOT NULL,              -- the how manieth time exactly this was begun; an interrupted turn is carried on
  run       TEXT NOT NULL REFERENCES run (id),
  target    TEXT NOT NULL,                 -- as in the job file, without a password
  state     TEXT NOT NULL,                 -- open, done
  rows      INTEGER,
  facts     TEXT,                          -- JSON: what the target said
  opened_at TEXT NOT NULL,
  done_at   TEXT,
  UNIQUE (id, turn)
) STRICT;

CREATE TABLE held (                        -- what a target has of a job: each chunk as it was judged when it was brought
  target TEXT NOT NULL,                    -- as in `publication`
  job    TEXT NOT NULL,
  run    TEXT NOT NULL,
  chunk  INTEGER NOT NULL,
  shape  TEXT NOT NULL,                    -- digest of the columns, the key and the mode it was brought with
  judged TEXT NOT NULL,                    -- digest of the verdicts and of what people decided
  PRIMARY KEY (target, job, run, chunk)
) STRICT;

CREATE TABLE event (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  at      TEXT NOT NULL,
  run     TEXT NOT NULL,
  chunk   INTEGER,
  intent  TEXT,
  was     TEXT,
  became  TEXT NOT NULL,
  because TEXT NOT NULL
) STRICT;
CREATE INDEX event_of_run ON event (run, seq);
