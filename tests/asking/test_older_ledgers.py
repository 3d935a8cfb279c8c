"""Ledgers of version 1, opened by this one: nothing that was paid is lost, and nobody is given what is another's."""

import json
import random
import sqlite3
from pathlib import Path

import pytest

from namesakes import QUESTIONS, A, B, C, D, question, recipe, result, said
from stillhouse.asking import Ledger, Request, chat
from stillhouse.asking.schema import why_shut
from stillhouse.errors import DataError
from stillhouse.recipe import Api
from stillhouse.teachers.past import import_answers

VERSION_1 = """
CREATE TABLE requests (key TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE wanted (
    key TEXT NOT NULL REFERENCES requests, purpose TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (key, purpose, row)
) WITHOUT ROWID;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, sent REAL NOT NULL, seconds REAL, outcome TEXT, cost REAL
);
CREATE TABLE answers (
    key TEXT PRIMARY KEY REFERENCES requests, status TEXT NOT NULL, text TEXT NOT NULL, reason TEXT NOT NULL,
    tokens TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL,
    source TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class Old:
    """A ledger as version 1 left it, where a question of a recipe with namesakes lay under a hash of its address too."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0.0
        self.base = sqlite3.connect(path)
        self.base.executescript(VERSION_1)

    def wants(self, request: Request, place: str) -> str:
        """Args: place: a part of the key, or ''."""
        name = request.named(place) if place else request.question
        body = json.dumps(request.body, ensure_ascii=False, sort_keys=True)
        self.base.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (name, request.path, body))
        self.base.execute("INSERT OR IGNORE INTO wanted VALUES (?, 'train', ?)", (name, request.row))
        return name

    def holds(
        self,
        request: Request,
        place: str,
        source: str,
        text: str,
        dollars: float = 0.5,
        status: str = "answered",
    ) -> None:
        name, self.at = self.wants(request, place), self.at + 1
        self.base.execute(
            "INSERT INTO attempts (key, sent, seconds, outcome, cost) VALUES (?, 1.0, 1.0, 'answered', ?)",
            (name, dollars),
        )
        self.base.execute(
            "INSERT INTO answers VALUES (?, ?, ?, '', '[]', 1, 1, ?, ?, ?)",
            (name, status, text, dollars, source, self.at),
        )

    def opened(self) -> Ledger:
        self.base.commit()
        self.base.close()
        return Ledger(self.path)


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "ledger.sqlite")


BODY = 'Ünï – 東京 \u2028 0.1, "quoted" 😀'


def test_an_older_ledger_is_opened_with_all_that_was_paid(old: Old) -> None:
    (alone,) = recipe(A)
    odd = Api(base_url=A, model="w", temperature=0.7, extra_body={"x": [1e-9, {"ä": None, "b": True}]})
    for api in (alone, odd):
        old.holds(question(api, BODY), "", A, f"said to {api.temperature}")
    with old.opened() as ledger:
        assert [said(ledger, question(api, BODY)) for api in (alone, odd)] == ["said to 0.0", "said to 0.7"]
        assert ledger.spent() == 1.0
        assert ledger.bill(alone, [question(api, BODY).question for api in (alone, odd)]) == 1.0
        (row,) = ledger.summary()
        assert (row["requests"], row["answered"], row["open"], row["cost"]) == (2, 2, 0, 1.0)
        assert ledger.knows(A) and ledger.pace(A, "w", ["train"]) == pytest.approx(2.0)
    with Ledger(old.path) as again:
        assert said(again, question(alone, BODY)) == "said to 0.0", "and opened once more"


@pytest.mark.parametrize("source", ["an address", "a file"])
def test_namesakes_in_an_older_ledger_keep_each_their_own(old: Old, source: str) -> None:
    first, second = recipe(A, B)
    for api, dollars in ((first, 0.5), (second, 0.25)):
        place = str(api.base_url)
        old.holds(
            question(api), place, place if source == "an address" else "results.jsonl", f"by {place}", dollars
        )
    with old.opened() as ledger:
        (row,) = ledger.summary()
        assert (row["requests"], row["answered"], row["open"]) == (2, 2, 0), "before anybody asks"
        for apis in (recipe(B), recipe(A), recipe(B, A), recipe(A)):
            for api in apis:
                assert said(ledger, question(api)) == f"by {api.base_url}"
                assert ledger.bill(api, [question(api).question]) == (0.5 if api.base_url == A else 0.25)
        assert said(ledger, question(*recipe(D))) is None


def test_an_older_ledger_that_was_killed_before_it_had_a_version_is_opened(old: Old) -> None:
    old.base.execute("PRAGMA user_version = 0")
    with old.opened() as ledger:
        assert ledger.summary() == [] and ledger.spent() == 0.0


def test_who_sat_on_one_panel_in_an_older_ledger_is_told_apart_when_one_is_left(old: Old) -> None:
    """A panel of which only one had answered everything when it was stopped."""
    for api, texts in zip(recipe(A, B), (QUESTIONS, QUESTIONS[:1]), strict=True):
        place = str(api.base_url)
        for text in texts:
            old.holds(question(api, text), place, place, f"by {place}")
    with old.opened() as ledger:
        (alone,) = recipe(B)
        assert [said(ledger, question(alone, text)) for text in QUESTIONS] == [f"by {B}", None, None]


@pytest.mark.parametrize("between", [(), (B,), (A, B)])
def test_who_was_planned_beside_another_in_an_older_ledger_gets_nothing_of_it(
    old: Old, between: tuple[str, ...]
) -> None:
    """Also once the other has been asked alone, which tells that the name is its."""
    first, second = recipe(A, B)
    for text in QUESTIONS:
        old.wants(question(first, text), A)
        old.holds(question(second, text), B, B, "by B")
    with old.opened() as ledger:
        (row,) = ledger.summary()
        assert (row["requests"], row["answered"], row["open"]) == (6, 3, 3), "before anybody asks"
        for api in recipe(*between) if between else ():
            assert said(ledger, question(api)) == (None if api.base_url == A else "by B")
        (alone,), (other,) = recipe(A), recipe(B)
        assert [said(ledger, question(alone, text)) for text in QUESTIONS] == [None] * 3
        assert [said(ledger, question(other, text)) for text in QUESTIONS] == ["by B"] * 3


@pytest.mark.parametrize("source", [B, "results.jsonl"])
def test_who_was_asked_before_another_joined_in_an_older_ledger_gets_nothing_of_it(
    old: Old, source: str
) -> None:
    first, second = recipe(A, B)
    for text in QUESTIONS[:2]:
        old.holds(question(first, text), "", A, "by A")
    for text in QUESTIONS:
        old.holds(question(second, text), B, source, "by B")
    with old.opened() as ledger:
        (alone,), (other,) = recipe(A), recipe(B)
        for _ in range(2):
            asked = [question(alone, text) for text in QUESTIONS]
            ledger.plan(asked)
            assert [said(ledger, one) for one in asked] == ["by A", "by A", None]
            assert ledger.bill(alone, [one.question for one in asked]) == 1.0
            assert [said(ledger, question(other, text)) for text in QUESTIONS] == ["by B"] * 3


def test_who_had_a_copy_of_its_own_in_an_older_ledger_is_told_apart_too(old: Old) -> None:
    """Asked alone first; there it had its answers under both names once another had joined."""
    first, second = recipe(A, B)
    for text in QUESTIONS:
        old.holds(question(first, text), "", A, "by A")
    old.base.execute(
        "INSERT INTO answers SELECT ?, status, text, reason, tokens, input_tokens, output_tokens, cost, source, at FROM answers "
        "WHERE key = ?",
        (old.wants(question(first), A), question(first).question),
    )
    old.holds(question(second), B, B, "by B")
    with old.opened() as ledger:
        (alone,) = recipe(B)
        assert [said(ledger, question(alone, text)) for text in QUESTIONS] == ["by B", None, None]
        assert said(ledger, question(*recipe(D))) is None


def test_a_copy_of_what_an_older_address_gave_is_still_whose_it_was_in_an_older_ledger(old: Old) -> None:
    """There who took an answer over had a copy; the address that gave it stood beside nobody."""
    first, second = recipe(A, B)
    old.holds(question(first), A, C, "by C")
    old.holds(question(second), B, B, "by B")
    with old.opened() as ledger:
        (alone,) = recipe(A)
        assert said(ledger, question(alone)) == "by C"
        assert said(ledger, question(*recipe(B))) == "by B"


BIASED = {"logit_bias": {9: -1, 10: -2}}
"""Numbers as keys, as YAML makes them: 9 is before 10, and "10" before "9"."""


@pytest.mark.parametrize("source", [A, "results.jsonl"])
@pytest.mark.parametrize("panel", [False, True])
def test_a_question_with_numbers_as_keys_is_found_in_an_older_ledger(
    old: Old, source: str, panel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There they were sorted as numbers, in the question's name too."""
    apis = recipe(*(A, B) if panel else (A,), **BIASED)
    asked = [question(api) for api in apis]
    with monkeypatch.context() as before:
        before.setattr(Request, "plain", property(lambda one: one.body))
        for one in (question(api) for api in apis):
            old.holds(one, one.place if panel else "", one.place if source == A else source, one.place)
    with old.opened() as ledger:
        ledger.plan(asked)
        assert [said(ledger, one) for one in asked] == [one.place for one in asked]
        (row,) = ledger.summary()
        assert (row["requests"], row["answered"], row["open"]) == (len(asked), len(asked), 0)


def test_numbers_as_keys_are_one_question_with_what_a_run_keeps_of_its_recipe(ledger: Ledger) -> None:
    (api,), (kept,) = recipe(A, **BIASED), recipe(A, **json.loads(json.dumps(BIASED)))
    one, again = question(api), question(kept)
    assert (one.key, one.named(A)) == (again.key, again.named(A))
    ledger.plan([one])
    (row,) = ledger.rows()
    assert chat(kept, "one", row="one", purpose="train").body == row["body"]
    assert import_answers(ledger, [result(one.key, "yes")], {again.key: again}, "out.jsonl") == (1, 1)
    assert said(ledger, one) == "yes"


def test_a_ledger_that_another_process_is_changing_is_not_called_damaged(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.asking.ledger.WAIT", 0.05)
    old.base.commit()
    other = sqlite3.connect(old.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DataError, match="another process has it open and is changing it; run again"):
        Ledger(old.path)
    other.execute("ROLLBACK")
    other.close()
    with old.opened() as ledger:
        assert ledger.summary() == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT])
def test_a_full_disk_is_not_called_damage(code: int) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    said = "no room on the disk" if code == sqlite3.SQLITE_FULL else "no ledger that can be read"
    assert said in why_shut(error)


def test_a_refusal_in_an_older_ledger_does_not_hide_what_was_answered_later(old: Old) -> None:
    """Refused alone; answered when a namesake had joined, under the other name."""
    first, _ = recipe(A, B)
    old.holds(question(first), "", A, "", 0.0, "refused")
    old.holds(question(first), A, A, "by A")
    with old.opened() as ledger:
        assert said(ledger, question(first)) == said(ledger, question(*recipe(A))) == "by A"


def test_an_older_ledger_that_cannot_be_brought_up_to_date_stays_as_it_was(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone,) = recipe(A)
    old.holds(question(alone), "", A, "by A")
    with monkeypatch.context() as patched:
        patched.setattr(
            "stillhouse.asking.schema.UPGRADE",
            ("INSERT INTO requests SELECT key, path, body FROM old_requests", "no SQL"),
        )
        with pytest.raises(DataError, match="is no ledger that can be read"):
            old.opened()
    with Ledger(old.path) as ledger:
        assert said(ledger, question(alone)) == "by A"


@pytest.mark.parametrize("seed", range(25))
def test_no_answer_of_an_older_ledger_is_lost_whatever_lies_under_which_name(old: Old, seed: int) -> None:
    """Copies under two names, two answers of one address, refusals, files, addresses that nobody asks any more."""
    draw = random.Random(seed)
    texts: dict[str, set[str]] = {}
    own: dict[tuple[str, str], str] = {}
    spent = 0.0
    for text in QUESTIONS:
        for place in draw.sample(["", A, B], draw.choice([1, 2, 3])):
            source = draw.choice([A, B, C, "results.jsonl"])
            says = f"{source} under {place or 'no address'}"
            status = draw.choice(["answered", "answered", "truncated", "refused"])
            cost = 0.0 if status == "refused" else draw.randrange(1, 100) / 128
            request = question(recipe(A)[0], text)
            old.holds(request, place, source, says, cost, status)
            spent += cost
            if status != "refused":
                texts.setdefault(text, set()).add(says)
                if place and source in (place, "results.jsonl"):
                    own[place, text] = says
    with old.opened() as ledger:
        assert ledger.spent() == pytest.approx(spent)
        for place in draw.sample([A, B], 2):
            for text in QUESTIONS:
                request = question(recipe(*([A, B] if place == A else [B, A]))[0], text)
                found = said(ledger, request)
                other = B if place == A else A
                assert found is None or found.endswith(place) or not found.startswith(other)
                if (place, text) in own:
                    assert found is not None and found.startswith((place, "results.jsonl"))
        there: dict[str, set[str]] = {}
        for one in ledger._base.execute(
            "SELECT json_extract(body, '$.messages[0].content'), text, status FROM answers JOIN requests USING (key)"
        ):
            if one[2] != "refused":
                there.setdefault(one[0], set()).add(one[1])
        assert there == texts
