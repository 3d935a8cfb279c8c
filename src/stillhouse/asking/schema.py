"""The tables of a ledger, and how one of the version before becomes one of this."""

import json
import sqlite3
from pathlib import Path

from ..errors import DataError
from ..files import hash_json

SCHEMA = (
    "CREATE TABLE requests (key TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE wanted (
        key TEXT NOT NULL REFERENCES requests, place TEXT NOT NULL, purpose TEXT NOT NULL, row TEXT NOT NULL,
        PRIMARY KEY (key, place, purpose, row)
    ) WITHOUT ROWID""",
    """CREATE TABLE attempts (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL, place TEXT NOT NULL, sent REAL NOT NULL, seconds REAL, outcome TEXT, cost REAL
    )""",
    """CREATE TABLE answers (
        key TEXT NOT NULL REFERENCES requests, place TEXT NOT NULL, taken TEXT NOT NULL, status TEXT NOT NULL, text TEXT NOT NULL,
        reason TEXT NOT NULL, tokens TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL,
        source TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, place)
    ) WITHOUT ROWID""",
    """CREATE TABLE apart (
        model TEXT NOT NULL, place TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (model, place, other)
    ) WITHOUT ROWID""",
    "CREATE TABLE unplaced (name TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX attempts_by_key ON attempts (key, place)",
)
VERSION = 2
ANSWER = "status, text, reason, tokens, input_tokens, output_tokens, cost"
"""Columns of what an answer says."""


def lay_out(base: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file, or bring one of the version before up to date; all of it or nothing, and once if two
    processes open it.  Raises: DataError if it is of another version."""
    if _version(base) == VERSION:
        return
    with base:
        base.execute("BEGIN IMMEDIATE")
        version = _version(base)
        if version not in (0, 1, VERSION):
            raise DataError(
                f"{path}: is a ledger of another version of stillhouse; use that, or move it away."
            )
        there = base.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone()
        if version == 1 or (
            version == 0 and there
        ):  # one of version 1 that was killed as it was made has no number
            upgrade(base)
        elif version == 0:
            for statement in SCHEMA:
                base.execute(statement)
        base.execute(f"PRAGMA user_version = {VERSION}")


def why_shut(error: sqlite3.DatabaseError) -> str:
    """Why a file could not be opened as a ledger, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the bytes before say more than is needed
    if code == sqlite3.SQLITE_BUSY:
        return "another process has it open and is changing it; run again when that is done."
    if code == sqlite3.SQLITE_FULL:
        return (
            "there is no room on the disk to bring it up to date, and nothing was changed; "
            "make room and run again."
        )
    return f"is no ledger that can be read ({error}); put a copy of it back, or move it away."


def _version(base: sqlite3.Connection) -> int:
    return int(base.execute("PRAGMA user_version").fetchone()[0])


def upgrade(base: sqlite3.Connection) -> None:
    """Version 1 -> 2, within the transaction that is open.

    There, where a recipe had namesakes, the key of a question was a hash of the address too, and all else lay under it.  Such a name
    tells no address, so it stands for one until a recipe asks there (`unplaced`, `apart.place_named`).
    """
    base.create_function("question_of", 2, lambda path, body: hash_json([path, json.loads(body)]))
    base.create_function("named_of", 3, lambda path, body, place: hash_json([path, json.loads(body), place]))
    for table in ("requests", "wanted", "attempts", "answers"):
        base.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in (*SCHEMA, *UPGRADE):
        base.execute(statement)
    for table in (
        "old_answers",
        "old_attempts",
        "old_wanted",
        "old_requests",
        "temp.placed",
        "temp.names",
        "temp.beside",
    ):
        base.execute(f"DROP TABLE {table}")


DIFFERS = "(a.text != o.text OR a.status != o.status OR a.at != o.at)"
UPGRADE = (
    "CREATE TEMP TABLE names (old TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID",
    "INSERT INTO names SELECT key, question_of(path, body) FROM old_requests",
    # an answer's place is the address that it came from, or else what its name says
    "CREATE TEMP TABLE placed (old TEXT PRIMARY KEY, key TEXT NOT NULL, place TEXT NOT NULL, taken TEXT NOT NULL) WITHOUT ROWID",
    """INSERT INTO placed SELECT o.key, COALESCE(n.key, o.key),
        CASE WHEN source GLOB 'http*://*' THEN source WHEN n.key = o.key THEN '' ELSE o.key END,
        CASE WHEN n.key = o.key THEN '' ELSE o.key END
    FROM old_answers o LEFT JOIN names n ON n.old = o.key""",
    "INSERT OR IGNORE INTO requests SELECT n.key, path, body FROM old_requests o JOIN names n ON n.old = o.key",
    f"""INSERT OR IGNORE INTO answers (key, place, taken, {ANSWER}, source, at)
        SELECT p.key, p.place, p.taken, {ANSWER}, source, at FROM old_answers o JOIN placed p ON p.old = o.key
        ORDER BY status = 'refused', p.key != p.old""",
    # two answers of one address: the second keeps its name, and a copy of the first is left out
    f"""UPDATE placed SET place = old, taken = '' WHERE old IN (
        SELECT p.old FROM placed p JOIN old_answers o ON o.key = p.old JOIN answers a ON a.key = p.key AND a.place = p.place
        WHERE o.status != 'refused' AND p.key != p.old AND {DIFFERS})""",
    f"""INSERT OR IGNORE INTO answers (key, place, taken, {ANSWER}, source, at)
        SELECT p.key, p.place, p.taken, {ANSWER}, source, at FROM old_answers o JOIN placed p ON p.old = o.key""",
    """INSERT INTO attempts SELECT id, COALESCE(n.key, o.key),
        COALESCE(p.place, CASE WHEN n.key IS NULL OR n.key = o.key THEN '' ELSE o.key END), sent, seconds, outcome, o.cost
    FROM old_attempts o LEFT JOIN names n ON n.old = o.key LEFT JOIN placed p ON p.old = o.key""",
    """INSERT OR IGNORE INTO wanted SELECT COALESCE(n.key, o.key),
        CASE WHEN n.key IS NULL OR n.key = o.key THEN COALESCE(p.place, '') ELSE o.key END, purpose, row
    FROM old_wanted o LEFT JOIN names n ON n.old = o.key LEFT JOIN placed p ON p.old = o.key""",
    "INSERT INTO unplaced SELECT old, key FROM names WHERE old != key",
    # whose name says its address stood beside a namesake; beside which is not known, and it may be one that has answered nothing
    """CREATE TEMP TABLE beside AS SELECT DISTINCT json_extract(body, '$.model') model, source place
    FROM old_requests r JOIN names n ON n.old = r.key
    JOIN (SELECT DISTINCT source FROM old_answers WHERE source GLOB 'http*://*') ON r.key = named_of(path, body, source)
    WHERE n.old != n.key""",
    "INSERT INTO apart SELECT a.model, a.place, b.place FROM beside a JOIN beside b USING (model)",
)
