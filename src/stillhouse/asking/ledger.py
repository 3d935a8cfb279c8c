"""Everything that was asked, answered and paid: one SQLite file a run folder, or one for all runs of a plan; it survives them.

    requests   key, path, body                        what can be asked, once each
    wanted     key, place, purpose, row               why, of whom, and for which rows
    attempts   key, place, sent, seconds, outcome,    each time a request left this machine; while it is under way, outcome is NULL
               cost                                   and cost the most that it may be
    answers    key, place, taken, status, text, …,    one a request and place, final; `tokens` is JSON, or JSON by zlib
               cost, source
    apart      model, place, other                    addresses at which a model of one name is another one, by a recipe so far
    unplaced   name, key                              see `upgrade`

A key is a hash of what is asked (`Request.question`), a place the address of who was asked, or for whom an answer came in a file; ''
if nobody knows.  An answer stays its place's for good.  Where a place has none, it takes one over, for endpoints move: none of a place
that it is told apart from, and none that such a place lives off; `taken` says who did so last.

An attempt is written before it is sent and an answer when it arrives, each in a transaction of its own (WAL).  A killed
process therefore loses nothing that arrived; a power cut can lose the last seconds.  Attempts that were under way when a
process died stay known, and are counted at the price of an average answer, or at the most that they may cost before there
is one: the endpoint may have billed them.
"""

import json
import sqlite3
import time
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import DataError
from ..files import hash_json
from ..recipe import Api
from .messages import Answer, Request, Tokens

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
_OWN = "SELECT place FROM answers b WHERE b.key = w.key AND b.place = w.place"
_TAKEN = f"""COALESCE(
    ({_OWN} AND b.status != 'refused'),
    (SELECT place FROM answers b WHERE b.key = w.key AND w.place IN ('', b.taken) ORDER BY b.status = 'refused', b.at LIMIT 1),
    ({_OWN})
)"""
"""The place whose answer serves one that is wanted, as `taken_of` chose it."""
_KEPT = "place, taken, status, cost, at"
SOME = 500
"""Keys in one query."""


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
            if self._version() != VERSION:
                self._make(path)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path}: is no ledger that can be read ({error}); put a copy of it back, or move it away."
            ) from error
        self._flushed = time.monotonic()

    def _version(self) -> int:
        return int(self._base.execute("PRAGMA user_version").fetchone()[0])

    def _make(self, path: Path) -> None:
        """Lay out an empty file, or one of the version before; all of it or nothing, and once if two processes open it."""
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            version = self._version()
            if version not in (0, 1, VERSION):
                raise DataError(
                    f"{path}: is a ledger of another version of stillhouse; use that, or move it away."
                )
            there = "SELECT 1 FROM sqlite_master WHERE name = 'requests'"
            if version == 1 or (
                version == 0 and self._base.execute(there).fetchone()
            ):  # killed as it was made
                upgrade(self._base)
            elif version == 0:
                for statement in SCHEMA:
                    self._base.execute(statement)
            self._base.execute(f"PRAGMA user_version = {VERSION}")

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
        """Write down what will be asked, and why; what is there already stays as it is.

        What was wanted of an address that the same question is not asked any more is not wanted of it.
        """
        requests = list(requests)
        apart = self._told_apart(requests)
        others = {asked: json.dumps(sorted(places)) for asked, places in apart.items()}
        with self._base:
            self._base.execute("BEGIN")
            for one in requests:
                body = json.dumps(one.body, ensure_ascii=False, sort_keys=True)
                self._base.execute(
                    "INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (one.question, one.path, body)
                )
                self._base.execute(
                    "DELETE FROM wanted WHERE key = ? AND purpose = ? AND row = ? AND place != ? "
                    "AND place NOT IN (SELECT value FROM json_each(?))",
                    (one.question, one.purpose, one.row, one.place, others[one.asked]),
                )
                self._base.execute(
                    "INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, ?)",
                    (one.question, one.place, one.purpose, one.row),
                )

    def begin(self, request: Request, most: float | None = None) -> int:
        """An attempt is about to leave.  Returns: its number.

        Args: most: dollars that it may cost, which count if it is never heard of again and no answer of its kind says better.
        """
        made = self._base.execute(
            "INSERT INTO attempts (key, place, sent, cost) VALUES (?, ?, ?, ?)",
            (request.question, request.place, time.time(), most),
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

    def keep(self, request: Request, answer: Answer, source: str) -> None:
        """An answer of the request's own place that is final; the first one stays.

        Args: source: where it came from: that address, or a file.
        """
        self._base.execute(
            f"INSERT OR IGNORE INTO answers (key, place, taken, {_ANSWER}, source, at) "
            "VALUES (?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.question,
                request.place,
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

    def forget(self, questions: Iterable[str], place: str) -> None:
        """A place's refusals that were not about their requests; what was paid for is never forgotten."""
        with self._base:
            self._base.execute("BEGIN")
            self._base.executemany(
                "DELETE FROM answers WHERE key = ? AND place = ? AND status = 'refused'",
                [(key, place) for key in questions],
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
        """The requests' own keys -> their answers, of those that there are: see `taken_of`.

        What is taken from another place is marked, so that none that is told apart from this one takes it as well.
        """
        apart = self._told_apart(requests)
        found: dict[str, Answer] = {}
        for start in range(0, len(requests), SOME):
            some = requests[start : start + SOME]
            keys = list({one.question for one in some})
            there = _by_question(
                self._base.execute(
                    f"SELECT key, {_KEPT}, {_ANSWER} FROM answers WHERE key IN ({', '.join('?' * len(keys))})",
                    keys,
                )
            )
            taken: list[tuple[str, str, str]] = []
            for one in some:
                kept = taken_of(one.place, apart[one.asked], there.get(one.question, ()))
                if kept is None:
                    continue
                found[one.key] = _answer(kept.said)
                if one.place not in ("", kept.place, kept.taken):
                    kept.taken = one.place
                    taken.append((one.place, one.question, kept.place))
            if taken:
                with self._base:
                    self._base.execute("BEGIN")
                    self._base.executemany("UPDATE answers SET taken = ? WHERE key = ? AND place = ?", taken)
        return found

    def _kept(self, questions: Collection[str]) -> dict[str, list["Kept"]]:
        """Question -> its answers, without what they say; a look at all, for these are many."""
        return _by_question(
            row for row in self._base.execute(f"SELECT key, {_KEPT} FROM answers") if row[0] in questions
        )

    def _told_apart(self, requests: Iterable[Request]) -> dict[tuple[str, str], frozenset[str]]:
        """(model, place) of each request -> where a model of that name is another one, by this recipe or an earlier one.

        Two that were told apart once stay apart.
        """
        asked = {(*one.asked, one.apart) for one in requests}
        pairs = {
            (model, *pair)
            for model, place, others in asked
            for other in others
            for pair in ((place, other), (other, place))
        }
        known = set(self._base.execute("SELECT model, place, other FROM apart"))
        if new := pairs - known:
            with self._base:
                self._base.execute("BEGIN")
                self._base.executemany("INSERT OR IGNORE INTO apart VALUES (?, ?, ?)", sorted(new))
        found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for model, place, other in known | pairs:
            found[model, place].add(other)
        apart = {(model, place): frozenset(found[model, place]) for model, place, _ in asked}
        self._place(requests, apart)
        return apart

    def _place(self, requests: Iterable[Request], apart: Mapping[tuple[str, str], frozenset[str]]) -> None:
        """Give what came from an older ledger by a name its address, where the recipe tells it."""
        unplaced = dict(self._base.execute("SELECT name, key FROM unplaced"))
        if not unplaced:
            return
        questions = set(unplaced.values())
        known = {
            name: (place, one.question)
            for one in requests
            if one.question in questions
            for place in (one.place, *apart[one.asked])
            if (name := one.named(place)) in unplaced
        }
        with self._base:
            self._base.execute("BEGIN")
            for name, (place, key) in known.items():
                for table in ("answers", "attempts", "wanted"):
                    self._base.execute(
                        f"UPDATE OR IGNORE {table} SET place = ? WHERE key = ? AND place = ?",
                        (place, key, name),
                    )
                self._base.execute(
                    "UPDATE answers SET taken = ? WHERE key = ? AND taken = ?", (place, key, name)
                )
                self._base.execute("DELETE FROM unplaced WHERE name = ?", (name,))

    def knows(self, source: str, model: str | None = None) -> bool:
        """Whether this endpoint has answered before, or that model of it."""
        query = f"SELECT 1 {_FROM} AND status != 'refused' LIMIT 1"
        return self._base.execute(query, (source, model)).fetchone() is not None

    def count(self, model: str, place: str = "") -> int:
        """How many answers there are of a model of that name, wherever they are from but where it is another one than that at `place`."""
        query = (
            "SELECT COUNT(*) FROM answers JOIN requests USING (key) WHERE json_extract(body, '$.model') = ?1 AND status != 'refused' "
            "AND answers.place NOT IN (SELECT other FROM apart WHERE model = ?1 AND apart.place = ?2)"
        )
        return int(self._base.execute(query, (model, place)).fetchone()[0])

    def refusals(self, source: str, model: str) -> list[tuple[str, str]]:
        """(question, why) of requests that were refused there."""
        query = f"SELECT key, reason {_FROM} AND status = 'refused' ORDER BY at"
        return self._base.execute(query, (source, model)).fetchall()

    def spent(self) -> float:
        """Dollars, of all attempts that ended; what answers from a file cost is not known."""
        query = "SELECT SUM(cost) FROM attempts WHERE outcome IS NOT NULL"
        return float(self._base.execute(query).fetchone()[0] or 0.0)

    def paid(self, api: Api, questions: Collection[str]) -> float:
        """Dollars, of the attempts that ended, for what `api` has been asked: where it is and where the answer is from that it takes.

        Those that came to nothing at an address that has no answer count as well, once: of several models of one name, for the first.
        """
        return self._paid(api, self._kept(set(questions)), questions)

    def bill(self, api: Api, questions: Collection[str]) -> float | None:
        """`paid`; None if an answer among them came without a price, as before the recipe had one, or out of a file."""
        place, apart, kept = api.base_url or "", self._apart_of(api), self._kept(set(questions))
        taken = [taken_of(place, apart[place], some) for some in kept.values()]
        if any(one is not None and one.cost is None and one.status != "refused" for one in taken):
            return None
        return self._paid(api, kept, questions)

    def _paid(self, api: Api, kept: Mapping[str, Sequence["Kept"]], questions: Collection[str]) -> float:
        place, mine, apart = api.base_url or "", set(questions), self._apart_of(api)
        taken = {key: taken_of(place, apart[place], some) for key, some in kept.items()}
        dollars = 0.0
        for key, where, cost in self._base.execute(
            "SELECT key, place, SUM(cost) FROM attempts WHERE cost IS NOT NULL AND outcome IS NOT NULL GROUP BY key, place"
        ):
            if key not in mine:
                continue
            chosen = taken.get(key)
            if where != place and (chosen is None or where != chosen.place):
                if any(one.place == where and one.status != "refused" for one in kept.get(key, ())):
                    continue  # it is another's
                heirs = [one for one in (place, *api.namesakes) if one != where and where not in apart[one]]
                if where in api.namesakes or place != min(heirs, default=None):
                    continue
            dollars += cost
        return dollars

    def _apart_of(self, api: Api) -> defaultdict[str, set[str]]:
        """Place -> where else a model of its name is another one."""
        found: defaultdict[str, set[str]] = defaultdict(set, {api.base_url or "": set(api.namesakes)})
        for place, other in self._base.execute(
            "SELECT place, other FROM apart WHERE model = ?", (api.model,)
        ):
            found[place].add(other)
        return found

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
            f"SELECT key, sent, seconds FROM attempts JOIN (SELECT key, answers.place {_LIKE}) USING (key, place) "
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
        query = f"""
            SELECT purpose, COUNT(*), SUM(status = 'answered'), SUM(status = 'truncated'), SUM(status = 'filtered'),
                   SUM(status IN ('empty', 'refused')), SUM(status IS NULL), SUM(input_tokens), SUM(output_tokens), SUM(cost)
            FROM (SELECT DISTINCT purpose, key, place FROM wanted) w
            LEFT JOIN answers a ON a.key = w.key AND a.place = {_TAKEN} GROUP BY purpose ORDER BY purpose
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
            SELECT w.purpose, w.row, w.key, w.place, r.path, r.body, {_ANSWER}, source
            FROM wanted w JOIN requests r ON r.key = w.key LEFT JOIN answers a ON a.key = w.key AND a.place = {_TAKEN}
            WHERE (?1 IS NULL OR w.purpose = ?1) AND (?2 IS NULL OR w.row = ?2 OR w.key LIKE ?2 || '%')
            ORDER BY w.purpose, w.row, w.place
        """
        for found in self._base.execute(query, (purpose, row)):
            why, whose, key, place, path, body, *values, source = found
            answer = None if values[0] is None else _answer(values)
            yield {
                "purpose": why, "row": whose, "key": key, "place": place, "path": path, "body": json.loads(body),
                "answer": answer, "source": source,
            }  # fmt: skip


@dataclass
class Kept:
    """An answer that lies in the ledger."""

    place: str
    taken: str
    status: str
    cost: float | None
    at: float
    said: tuple[Any, ...] = ()
    """What it says, where that was asked for: the columns of `_ANSWER`."""

    @property
    def known(self) -> bool:
        """Whether its place is an address, or none; not the name that an older ledger has for one."""
        return not self.place or "://" in self.place


def taken_of(place: str, apart: Collection[str], kept: Sequence[Kept]) -> Kept | None:
    """Which of the answers to one question serves who is asked at `place`: its own; else one that nobody else may claim.

    That is none of a place in `apart`, where a model of its name is another one, and none that such a place took over for want of its
    own.  A refusal, which costs nothing, is not taken over beside such places, nor is what may be theirs; and an answer goes before any
    refusal.
    """
    living = {one.place for one in kept if one.status != "refused"}
    needed = set(apart) - living
    free = [
        one
        for one in kept
        if one.place == place
        or (
            one.place not in apart
            and one.taken not in needed
            and (not apart or (one.status != "refused" and one.known))
        )
    ]
    return min(
        free,
        key=lambda one: (one.status == "refused", one.place != place, one.taken != place, one.at, one.place),
        default=None,
    )


def upgrade(base: sqlite3.Connection) -> None:
    """Version 1 -> 2, within the transaction that is open.

    There, where a recipe had namesakes, the key of a question was a hash of the address too, and all else lay under it.  Such a name
    tells no address, so it stands for one until a recipe asks there (`unplaced`, `Ledger._place`).
    """
    base.create_function("question_of", 2, lambda path, body: hash_json([path, json.loads(body)]))
    for table in ("requests", "wanted", "attempts", "answers"):
        base.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in (*SCHEMA, *UPGRADE):
        base.execute(statement)
    for table in ("old_answers", "old_attempts", "old_wanted", "old_requests", "temp.placed", "temp.names"):
        base.execute(f"DROP TABLE {table}")


_DIFFERS = "(a.text != o.text OR a.status != o.status OR a.at != o.at)"
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
    f"""INSERT OR IGNORE INTO answers (key, place, taken, {_ANSWER}, source, at)
        SELECT p.key, p.place, p.taken, {_ANSWER}, source, at FROM old_answers o JOIN placed p ON p.old = o.key
        ORDER BY status = 'refused', p.key != p.old""",
    # two answers of one address: the second keeps its name, and a copy of the first is left out
    f"""UPDATE placed SET place = old, taken = '' WHERE old IN (
        SELECT p.old FROM placed p JOIN old_answers o ON o.key = p.old JOIN answers a ON a.key = p.key AND a.place = p.place
        WHERE o.status != 'refused' AND p.key != p.old AND {_DIFFERS})""",
    f"""INSERT OR IGNORE INTO answers (key, place, taken, {_ANSWER}, source, at)
        SELECT p.key, p.place, p.taken, {_ANSWER}, source, at FROM old_answers o JOIN placed p ON p.old = o.key""",
    """INSERT INTO attempts SELECT id, COALESCE(n.key, o.key),
        COALESCE(p.place, CASE WHEN n.key IS NULL OR n.key = o.key THEN '' ELSE o.key END), sent, seconds, outcome, o.cost
    FROM old_attempts o LEFT JOIN names n ON n.old = o.key LEFT JOIN placed p ON p.old = o.key""",
    """INSERT OR IGNORE INTO wanted SELECT COALESCE(n.key, o.key),
        CASE WHEN n.key IS NULL OR n.key = o.key THEN COALESCE(p.place, '') ELSE o.key END, purpose, row
    FROM old_wanted o LEFT JOIN names n ON n.old = o.key LEFT JOIN placed p ON p.old = o.key""",
    "INSERT INTO unplaced SELECT old, key FROM names WHERE old != key",
    """INSERT OR IGNORE INTO apart SELECT DISTINCT json_extract(body, '$.model'), a.place, b.place
    FROM answers a JOIN answers b USING (key) JOIN requests USING (key)
    WHERE a.place != b.place AND a.taken != '' AND b.taken != ''""",
)


def _by_question(rows: Iterable[Sequence[Any]]) -> dict[str, list[Kept]]:
    """(key, …) -> by key."""
    found: dict[str, list[Kept]] = {}
    for key, place, taken, status, cost, at, *said in rows:
        found.setdefault(key, []).append(Kept(place, taken, status, cost, at, tuple(said)))
    return found


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
