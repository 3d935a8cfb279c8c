"""Everything that was asked, answered and paid: one SQLite file a run folder, or one for all runs of a plan; it survives them.

    requests   key, path, body                        what can be asked, once each
    wanted     key, purpose, row                      why, and for which rows
    attempts   key, sent, seconds, outcome, cost      each time a request left this machine; while it is under way, outcome is NULL
                                                      and cost the most that it may be
    answers    key, status, text, …, cost, source     one a request, final; `tokens` is JSON, or JSON by zlib

An attempt is written before it is sent and an answer when it arrives, each in a transaction of its own (WAL).  A killed
process therefore loses nothing that arrived; a power cut can lose the last seconds.  Attempts that were under way when a
process died stay known, and are counted at the price of an average answer, or at the most that they may cost before there
is one: the endpoint may have billed them.
"""

import json
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import DataError
from .messages import Answer, Request, Tokens

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (
    key TEXT NOT NULL REFERENCES requests, purpose TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (key, purpose, row)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, sent REAL NOT NULL, seconds REAL, outcome TEXT, cost REAL
);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY REFERENCES requests, status TEXT NOT NULL, text TEXT NOT NULL, reason TEXT NOT NULL,
    tokens TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL,
    source TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
"""
VERSION = 1
FLUSH_SECONDS = 5.0
"""Between flushes to disk, which a power cut cannot undo."""
LEDGER = "ledger.sqlite"
RUNS = "runs"
"""Folder, in that of a plan, in which its runs lie."""
_FROM = (
    "FROM answers JOIN requests USING (key) "
    "WHERE source = ?1 AND (?2 IS NULL OR json_extract(body, '$.model') = ?2)"
)
_LIKE = (
    f"{_FROM} AND status != 'refused' AND EXISTS (SELECT 1 FROM wanted WHERE wanted.key = answers.key "
    "AND purpose IN (SELECT value FROM json_each(?3)))"
)
"""Answers of a model at an endpoint to questions with the same purposes: others are as long, as dear and as slow as they like."""
PAUSE = 60.0
"""Seconds without any attempt that still belong to asking: limits a minute, and waits."""
_ANSWER = "status, text, reason, tokens, input_tokens, output_tokens, cost"


def ledger_of(run: Path, name: str) -> Path:
    """Where the ledger called `name` of a run folder lies.

    That is its plan's folder if the plan has one there: its runs ask much the same, and pay once.  A run that began a ledger
    of its own keeps it.
    """
    plan = run.absolute().parent.parent / name
    own = run / name
    return plan if run.absolute().parent.name == RUNS and plan.exists() and not own.exists() else own


class Ledger:
    """Such a file, open; close it, or use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Raises: DataError if the file is no ledger, or is damaged."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise DataError(
                    f"{path}: is a ledger of another version of stillhouse; use that, or move it away."
                )
            self._base.executescript(SCHEMA)
            self._base.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path}: is no ledger that can be read ({error}); put a copy of it back, or move it away."
            ) from error
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush, and let go of the file."""
        self._base.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._base.close()

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def plan(self, requests: Iterable[Request]) -> None:
        """Write down what will be asked, and why; what is there already stays as it is."""
        with self._base:
            self._base.execute("BEGIN")
            for one in requests:
                body = json.dumps(one.body, ensure_ascii=False, sort_keys=True)
                self._base.execute(
                    "INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (one.key, one.path, body)
                )
                self._base.execute(
                    "INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", (one.key, one.purpose, one.row)
                )

    def begin(self, key: str, most: float | None = None) -> int:
        """An attempt is about to leave.  Returns: its number.

        Args: most: dollars that it may cost, which count if it is never heard of again and no answer of its kind says better.
        """
        made = self._base.execute(
            "INSERT INTO attempts (key, sent, cost) VALUES (?, ?, ?)", (key, time.time(), most)
        )
        return int(made.lastrowid or 0)

    def end(self, attempt: int, seconds: float, outcome: str, cost: float | None) -> None:
        """It came to an end: "answered", or why not.  `cost` is what it cost, or may have cost."""
        self._base.execute(
            "UPDATE attempts SET seconds = ?, outcome = ?, cost = ? WHERE id = ?",
            (round(seconds, 4), outcome, cost, attempt),
        )
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._base.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._flushed = time.monotonic()

    def keep(self, key: str, answer: Answer, source: str) -> None:
        """An answer that is final; the first one to a request stays."""
        self._base.execute(
            f"INSERT OR IGNORE INTO answers (key, {_ANSWER}, source, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                answer.status,
                answer.text,
                answer.reason,
                _packed(answer.tokens),
                answer.input_tokens,
                answer.output_tokens,
                answer.cost,
                source,
                time.time(),
            ),
        )

    def forget(self, keys: Sequence[str]) -> None:
        """Refusals that were not about their requests; what was paid for is never forgotten."""
        with self._base:
            self._base.execute("BEGIN")
            self._base.executemany(
                "DELETE FROM answers WHERE key = ? AND status = 'refused'", [(key,) for key in keys]
            )

    def bury(self) -> int:
        """Give attempts that a killed process left behind an outcome, and the cost of a mean answer of their model to questions
        with their purpose, or, before there is one, the most that they may have cost.  Returns: how many."""
        left = self._base.execute(
            "SELECT id, json_extract(body, '$.model'), MIN(purpose) FROM attempts LEFT JOIN requests USING (key) "
            "LEFT JOIN wanted USING (key) WHERE outcome IS NULL GROUP BY id"
        ).fetchall()
        if not left:
            return 0
        means = {
            (model, purpose): cost
            for model, purpose, cost in self._base.execute(
                "SELECT json_extract(body, '$.model'), purpose, AVG(cost) FROM answers JOIN requests USING (key) "
                "JOIN (SELECT DISTINCT key, purpose FROM wanted) USING (key) WHERE status != 'refused' GROUP BY 1, 2"
            )
        }
        with self._base:
            self._base.execute("BEGIN")
            self._base.executemany(
                "UPDATE attempts SET outcome = 'killed', cost = COALESCE(?, cost) WHERE id = ?",
                [(means.get((model, purpose)), attempt) for attempt, model, purpose in left],
            )
        return len(left)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def answers(self, requests: Sequence[Request]) -> dict[str, Answer]:
        """key -> answer, of those that there are.

        One that lies under a request's other name is put under its key, unless it is from an endpoint that the request is kept apart
        from: whether a recipe has another model of that name or not, nothing is bought twice.
        """
        found = self._answers([one.key for one in requests])
        others = [one for one in requests if one.key not in found and one.alias != one.key]
        there = self._answers([one.alias for one in others])
        if renamed := [one for one in others if one.alias in there]:
            self._rename(renamed)
            found |= self._answers([one.key for one in renamed])
        return found

    def _rename(self, requests: Sequence[Request]) -> None:
        """Take over what lies under the other names of `requests`, and what was paid for it; a refusal, which costs nothing, may be
        another endpoint's.  What came from elsewhere (a file, an old address) is taken by the first that asks, and by no namesake of its."""
        self.plan(requests)
        with self._base:
            self._base.execute("BEGIN")
            for one in requests:
                taken = self._base.execute(
                    f"INSERT OR IGNORE INTO answers (key, {_ANSWER}, source, at) SELECT ?, {_ANSWER}, source, at FROM answers "
                    "WHERE key = ? AND status != 'refused' AND source NOT IN (SELECT value FROM json_each(?))",
                    (one.key, one.alias, json.dumps(one.apart)),
                ).rowcount
                if taken:
                    self._base.execute(
                        "DELETE FROM answers WHERE key = ? AND source != ?", (one.alias, one.place)
                    )
                    self._base.execute("UPDATE attempts SET key = ? WHERE key = ?", (one.key, one.alias))
                self._base.execute(
                    "DELETE FROM wanted WHERE key = ? AND purpose = ? AND row = ?",
                    (one.alias, one.purpose, one.row),
                )

    def _answers(self, keys: Sequence[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ", ".join("?" * len(some))
            for key, *values in self._base.execute(
                f"SELECT key, {_ANSWER} FROM answers WHERE key IN ({marks})", some
            ):
                found[key] = _answer(values)
        return found

    def knows(self, source: str, model: str | None = None) -> bool:
        """Whether this endpoint has answered before, or that model of it."""
        query = f"SELECT 1 {_FROM} AND status != 'refused' LIMIT 1"
        return self._base.execute(query, (source, model)).fetchone() is not None

    def count(self, model: str, apart: Iterable[str] = ()) -> int:
        """How many answers there are of a model of that name, wherever they are from but `apart`: its namesakes' addresses."""
        query = (
            "SELECT COUNT(*) FROM answers JOIN requests USING (key) WHERE json_extract(body, '$.model') = ? "
            "AND status != 'refused' AND source NOT IN (SELECT value FROM json_each(?))"
        )
        return int(self._base.execute(query, (model, json.dumps(list(apart)))).fetchone()[0])

    def refusals(self, source: str, model: str) -> list[tuple[str, str]]:
        """(key, why) of requests that were refused there."""
        query = f"SELECT key, reason {_FROM} AND status = 'refused' ORDER BY at"
        return self._base.execute(query, (source, model)).fetchall()

    def spent(self, keys: Collection[str] | None = None) -> float:
        """Dollars, of all attempts that ended or of those at `keys`; what answers from a file cost is not known."""
        costs = self._base.execute(
            "SELECT key, SUM(cost) FROM attempts WHERE cost IS NOT NULL AND outcome IS NOT NULL GROUP BY key"
        )
        return float(sum(dollars for key, dollars in costs if keys is None or key in keys))

    def bill(self, keys: Collection[str]) -> float | None:
        """`spent` of `keys`; None if an answer among them came without a price, as before the recipe had one, or out of a file."""
        free = self._base.execute("SELECT key FROM answers WHERE cost IS NULL AND status != 'refused'")
        return None if any(key in keys for (key,) in free) else self.spent(keys)

    def typical(self, source: str, model: str, purposes: Iterable[str]) -> tuple[float, float | None, int]:
        """(tokens written, dollars) of a mean answer of that model at that endpoint to questions with one of `purposes`, and of
        how many with a price; 0 and None if there is none."""
        tokens = "COALESCE(AVG(CASE WHEN cost IS NOT NULL THEN output_tokens END), AVG(output_tokens))"
        query = f"SELECT {tokens}, AVG(cost), COUNT(cost) {_LIKE}"
        row = self._base.execute(query, (source, model, json.dumps(sorted(purposes)))).fetchone()
        return float(row[0] or 0), row[1], int(row[2])

    def pace(self, source: str, model: str, purposes: Iterable[str]) -> float | None:
        """Such answers a second, while they were asked for: between two runs nobody asks.  None if there are none."""
        query = (
            f"SELECT key, sent, seconds FROM attempts JOIN (SELECT key {_LIKE}) USING (key) "
            "WHERE seconds IS NOT NULL ORDER BY sent"
        )
        keys, took, end = set(), 0.0, float("-inf")
        for key, sent, seconds in self._base.execute(query, (source, model, json.dumps(sorted(purposes)))):
            keys.add(key)
            took += max(0.0, sent + seconds - (end if sent - end <= PAUSE else sent))
            end = max(end, sent + seconds)
        return len(keys) / took if took else None

    def summary(self) -> list[dict[str, Any]]:
        """One row a purpose: requests, answers by status, tokens, dollars."""
        query = """
            SELECT purpose, COUNT(*), SUM(status = 'answered'), SUM(status = 'truncated'), SUM(status = 'filtered'),
                   SUM(status IN ('empty', 'refused')), SUM(status IS NULL), SUM(input_tokens), SUM(output_tokens), SUM(cost)
            FROM (SELECT DISTINCT purpose, key FROM wanted) LEFT JOIN answers USING (key) GROUP BY purpose ORDER BY purpose
        """
        names = (
            "purpose", "requests", "answered", "truncated", "filtered", "refused", "open", "input_tokens", "output_tokens", "cost",
        )  # fmt: skip
        return [dict(zip(names, row, strict=True)) for row in self._base.execute(query)]

    def attempts(self) -> dict[str, int]:
        """Outcome -> how many attempts had it."""
        query = "SELECT COALESCE(outcome, 'under way'), COUNT(*) FROM attempts GROUP BY 1 ORDER BY 2 DESC"
        return dict(self._base.execute(query).fetchall())

    def rows(self, purpose: str | None = None, row: str | None = None) -> Iterator[dict[str, Any]]:
        """Each question with its answer, or None where there is none yet."""
        query = f"""
            SELECT w.purpose, w.row, w.key, r.path, r.body, {_ANSWER}, source
            FROM wanted w JOIN requests r USING (key) LEFT JOIN answers a USING (key)
            WHERE (?1 IS NULL OR w.purpose = ?1) AND (?2 IS NULL OR w.row = ?2 OR w.key LIKE ?2 || '%')
            ORDER BY w.purpose, w.row
        """
        for found in self._base.execute(query, (purpose, row)):
            why, whose, key, path, body, *values, source = found
            answer = None if values[0] is None else _answer(values)
            yield {
                "purpose": why, "row": whose, "key": key, "path": path, "body": json.loads(body),
                "answer": answer, "source": source,
            }  # fmt: skip

    def open_requests(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(key, path, body) of what has no answer yet."""
        query = "SELECT key, path, body FROM requests WHERE key NOT IN (SELECT key FROM answers) ORDER BY key"
        for key, path, body in self._base.execute(query):
            yield key, path, json.loads(body)


def _answer(values: Sequence[Any]) -> Answer:
    status, text, reason, tokens, *rest = values
    return Answer(status, text, reason, _unpacked(tokens), *rest)


def _packed(tokens: Tokens) -> str | bytes:
    """Log-probabilities to 1e-5 nat, by zlib: 20 alternatives of a token take about 150 bytes, and 630 as plain JSON."""
    if not tokens:
        return "[]"
    rounded = [
        [token, {other: round(log_p, 5) for other, log_p in others.items()}] for token, others in tokens
    ]
    return zlib.compress(json.dumps(rounded, ensure_ascii=False, separators=(",", ":")).encode())


def _unpacked(kept: str | bytes) -> Tokens:
    """What `_packed` made; ledgers from before it have JSON."""
    text = zlib.decompress(kept) if isinstance(kept, bytes) else kept
    return tuple((token, dict(others)) for token, others in json.loads(text))
