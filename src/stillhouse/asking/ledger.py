"""Everything that was asked, answered and paid: one SQLite file a run folder, or one for all runs of a plan; it survives them.

    requests   key, path, body                        what can be asked, once each
    wanted     key, place, purpose, row               why, of whom, and for which rows
    attempts   key, place, sent, seconds, outcome,    each time a request left this machine; while it is under way, outcome is NULL
               cost                                   and cost the most that it may be
    answers    key, place, taken, status, text, …,    one a request and place, final; `tokens` is JSON, or JSON by zlib
               cost, source
    apart      model, place, other                    see `apart.Apart`
    unplaced   name, key                              see `schema.upgrade`

A key is a hash of what is asked (`Request.question`), a place the address of who was asked, or for whom an answer came in a file; ''
if nobody knows.  An answer stays its place's for good.  Where a place has none, it takes one over, for endpoints move: none of a place
that was ever told apart from a namesake, and none that one lives off from which it is told apart; `taken` says who did so last.

An attempt is written before it is sent and an answer when it arrives, each in a transaction of its own (WAL).  A killed
process therefore loses nothing that arrived; a power cut can lose the last seconds.  Attempts that were under way when a
process died stay known, and are counted at the price of an average answer, or at the most that they may cost before there
is one: the endpoint may have billed them.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import DataError
from ..recipe import Api
from .apart import apart_of, tell_apart, told_apart
from .kept import Kept, answer_of, by_question, packed, taken_of
from .messages import Answer, Request
from .schema import ANSWER, lay_out, why_shut

FLUSH_SECONDS = 5.0
"""Between flushes to disk, which a power cut cannot undo."""
WAIT = 30.0
"""Seconds for another process to be done with a change."""
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
_OWN = "SELECT place FROM answers b WHERE b.key = w.key AND b.place = w.place"
_APART = "(SELECT place FROM apart WHERE model = (SELECT json_extract(body, '$.model') FROM requests WHERE key = w.key))"
_TAKEN = f"""COALESCE(
    ({_OWN} AND b.status != 'refused'),
    (SELECT place FROM answers b WHERE b.key = w.key AND CASE
        WHEN w.place != '' AND w.place = b.taken THEN
            w.place NOT LIKE '%://%' OR b.place NOT IN {_APART} AND (b.status != 'refused' OR w.place NOT IN {_APART})
        ELSE w.place = '' AND b.place NOT IN {_APART} AND (b.place = '' OR b.place LIKE '%://%')
            AND (b.taken = '' OR b.taken LIKE '%://%') END
        ORDER BY b.status = 'refused', b.taken != '', b.at, b.place LIMIT 1),
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
        """Raises: DataError if the file is no ledger, is damaged, or cannot be changed now."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, isolation_level=None, timeout=WAIT, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = NORMAL")
            lay_out(self._base, path)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: {why_shut(error)}") from error
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
        """Write down what will be asked, and why; what is there already stays as it is.

        What was wanted of an address that the same question is not asked any more is not wanted of it.
        """
        requests = list(requests)
        apart = tell_apart(self._base, requests)
        others = {
            (model, place): json.dumps(sorted(places))
            for model, told in apart.items()
            for place, places in told.items()
        }
        with self._base:
            self._base.execute("BEGIN")
            for one in requests:
                body = json.dumps(one.plain, ensure_ascii=False, sort_keys=True)
                self._base.execute(
                    "INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (one.question, one.path, body)
                )
                self._base.execute(
                    "DELETE FROM wanted WHERE key = ? AND purpose = ? AND row = ? AND place != ? "
                    "AND place NOT IN (SELECT value FROM json_each(?))",
                    (one.question, one.purpose, one.row, one.place, others.get(one.asked, "[]")),
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
            f"INSERT OR IGNORE INTO answers (key, place, taken, {ANSWER}, source, at) "
            "VALUES (?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.question,
                request.place,
                answer.status,
                answer.text,
                answer.reason,
                packed(answer.tokens),
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
        apart = tell_apart(self._base, requests)
        found: dict[str, Answer] = {}
        for start in range(0, len(requests), SOME):
            some = requests[start : start + SOME]
            keys = list({one.question for one in some})
            there = by_question(
                self._base.execute(
                    f"SELECT key, {_KEPT}, {ANSWER} FROM answers WHERE key IN ({', '.join('?' * len(keys))})",
                    keys,
                )
            )
            taken: list[tuple[str, str, str]] = []
            for one in some:
                kept = taken_of(one.place, apart[one.asked[0]], there.get(one.question, ()))
                if kept is None:
                    continue
                found[one.key] = answer_of(kept.said)
                if one.place not in ("", kept.place, kept.taken):
                    kept.taken = one.place
                    taken.append((one.place, one.question, kept.place))
            if taken:
                with self._base:
                    self._base.execute("BEGIN")
                    self._base.executemany("UPDATE answers SET taken = ? WHERE key = ? AND place = ?", taken)
        return found

    def _kept(self, questions: Collection[str]) -> dict[str, list[Kept]]:
        """Question -> its answers, without what they say; a look at all, for these are many."""
        return by_question(
            row for row in self._base.execute(f"SELECT key, {_KEPT} FROM answers") if row[0] in questions
        )

    def knows(self, source: str, model: str | None = None) -> bool:
        """Whether this endpoint has answered before, or that model of it."""
        query = f"SELECT 1 {_FROM} AND status != 'refused' LIMIT 1"
        return self._base.execute(query, (source, model)).fetchone() is not None

    def count(self, model: str, place: str = "") -> int:
        """How many questions to a model of that name have an answer that serves it at `place`, wherever that is from."""
        found = by_question(
            self._base.execute(
                f"SELECT key, {_KEPT} FROM answers JOIN requests USING (key) "
                "WHERE json_extract(body, '$.model') = ? AND status != 'refused'",
                (model,),
            )
        )
        apart = told_apart(self._base, model)
        return sum(taken_of(place, apart, some) is not None for some in found.values())

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

        Those that came to nothing at an address that has no answer count as well, once: of several models of one name, for the first;
        but at one that ever stood beside a namesake, for that alone.
        """
        return self._paid(api, self._kept(set(questions)), questions)

    def bill(self, api: Api, questions: Collection[str]) -> float | None:
        """`paid`; None if an answer among them came without a price, as before the recipe had one, or out of a file."""
        place, apart, kept = api.base_url or "", apart_of(self._base, api), self._kept(set(questions))
        taken = [taken_of(place, apart, some) for some in kept.values()]
        if any(one is not None and one.cost is None and one.status != "refused" for one in taken):
            return None
        return self._paid(api, kept, questions)

    def _paid(self, api: Api, kept: Mapping[str, Sequence[Kept]], questions: Collection[str]) -> float:
        place, mine, apart = api.base_url or "", set(questions), apart_of(self._base, api)
        taken = {key: taken_of(place, apart, some) for key, some in kept.items()}
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
                if where in apart or (where and "://" not in where) or place != min((place, *api.namesakes)):
                    continue  # or it stays with who stood beside a namesake, or is the first heir's
            dollars += cost
        return dollars

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
            SELECT w.purpose, w.row, w.key, w.place, r.path, r.body, {ANSWER}, source
            FROM wanted w JOIN requests r ON r.key = w.key LEFT JOIN answers a ON a.key = w.key AND a.place = {_TAKEN}
            WHERE (?1 IS NULL OR w.purpose = ?1) AND (?2 IS NULL OR w.row = ?2 OR w.key LIKE ?2 || '%')
            ORDER BY w.purpose, w.row, w.place
        """
        for found in self._base.execute(query, (purpose, row)):
            why, whose, key, place, path, body, *values, source = found
            answer = None if values[0] is None else answer_of(values)
            yield {
                "purpose": why, "row": whose, "key": key, "place": place, "path": path, "body": json.loads(body),
                "answer": answer, "source": source,
            }  # fmt: skip
