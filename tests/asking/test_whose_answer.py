"""Whose an answer is, over random histories of recipes that gain, lose, move and import for models of one name."""

import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stillhouse.asking import Answer, Ledger, Request, chat
from stillhouse.asking.files import export_batch
from stillhouse.asking.schema import why_shut
from stillhouse.data.load import Raw
from stillhouse.errors import DataError
from stillhouse.files import read_jsonl
from stillhouse.recipe import Api
from stillhouse.recipe.api import tell_apart
from stillhouse.teachers.past import import_answers

A, B, C, D = (f"http://{name}.example/v1" for name in "abcd")
QUESTIONS = ("one", "two", "three")
STORED = Api(model="w", answers="past.jsonl")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def recipe(*places: str, **body: Any) -> list[Api]:
    """The APIs of a recipe that asks a model "w" at each of these addresses."""
    apis = [Api(base_url=place, model="w", extra_body=body) for place in places]
    tell_apart(apis)
    return apis


def question(api: Api, text: str = "one") -> Request:
    return chat(api, text, row=text, purpose="train")


def buy(ledger: Ledger, request: Request, text: str, dollars: float) -> None:
    ledger.plan([request])
    ledger.end(ledger.begin(request, 9.0), 0.1, "answered", dollars)
    ledger.keep(request, Answer("answered", text, cost=dollars), request.place)


def said(ledger: Ledger, request: Request) -> str | None:
    found = ledger.answers([request]).get(request.key)
    return found and found.text


def result(name: str, text: str) -> Raw:
    """A line of a batch's output."""
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return Raw("results.jsonl:1", {"custom_id": name, "response": {"status_code": 200, "body": body}})


@dataclass
class Told:
    """What happened so far, as anybody would write it down."""

    made: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Text -> (question, who made it; "" if nobody knows)."""
    apart: set[tuple[str, str]] = field(default_factory=set)
    uses: dict[str, str] = field(default_factory=dict)
    """Text -> who took it last, of those that did not make it."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """(question, place)."""
    attempts: list[tuple[str, str, float]] = field(default_factory=list)
    """(question, place, dollars)."""

    def by(self, asked: str, place: str) -> list[str]:
        return [text for text, made in self.made.items() if made == (asked, place)]

    def contested(self, place: str) -> bool:
        """Whether it ever stood beside a namesake: what is its own is nobody else's then."""
        return any(place in pair for pair in self.apart)

    def is_refused(self, asked: str, place: str) -> bool:
        """Where it is asked, or, by an endpoint that is told apart from none, where such a one was before."""
        return (asked, place) in self.refused or (
            not self.contested(place)
            and any(one == asked and not self.contested(maker) for one, maker in self.refused)
        )

    def may(self, asked: str, place: str) -> list[str]:
        """Texts that serve `place` without being anybody's whom it is told apart from."""
        if own := self.by(asked, place):
            return own
        return [
            text
            for text, (about, maker) in self.made.items()
            if about == asked
            and not self.contested(maker)
            and not (
                (user := self.uses.get(text)) is not None
                and (user, place) in self.apart
                and not self.by(asked, user)
            )
        ]


def history(ledger: Ledger, seed: int, steps: int = 14) -> None:
    """Random recipes, one after the other, in one ledger; each is asserted to be served as it must be."""
    draw, told = random.Random(seed), Told()
    for step in range(steps):
        places = draw.sample((A, B, C, D), draw.choice([1, 1, 2, 2, 3]))
        apis = recipe(*places)
        told.apart |= {(one, other) for one in places for other in places if one != other}
        if draw.random() < 0.2:
            stored = question(STORED, draw.choice(QUESTIONS))
            ledger.plan([stored])
            if not ledger.answers([stored]):
                ledger.keep(stored, Answer("answered", f"file {step}"), "past.jsonl")
                told.made[f"file {step}"] = stored.row, ""
        requests = [question(api, text) for api in apis for text in QUESTIONS]
        draw.shuffle(requests)
        ledger.plan(requests)
        for one in requests:
            if draw.random() < 0.15:  # a batch's results, under whichever name they went out
                text = f"batch {step} {one.place} {one.row}"
                before = told.may(one.row, one.place) or told.is_refused(one.row, one.place)
                import_answers(ledger, [result(one.named(one.place), text)], {one.key: one}, "results.jsonl")
                if not before:
                    told.made[text] = one.row, one.place
            turn(ledger, told, one, draw, f"{step}")
        served = {(one.place, one.row): said(ledger, one) or None for one in requests}
        shown = {
            (one["place"], one["row"]): (one["answer"] and one["answer"].text) or None
            for one in ledger.rows()
        }
        assert {asked: shown[asked] for asked in served} == served, "a look at the ledger says the same"
        check_bills(ledger, told, apis, served)


def turn(ledger: Ledger, told: Told, one: Request, draw: random.Random, step: str) -> None:
    """One request is looked up, and perhaps asked."""
    found, may = ledger.answers([one]).get(one.key), told.may(one.row, one.place)
    text = None if found is None or found.status == "refused" else found.text
    assert (text is None) == (not may), f"{one.place} {one.row}: bought twice, or not at all: {text!r}, {may}"
    if text is None:
        assert (found is not None) == told.is_refused(one.row, one.place)
        if found is not None:
            return
    else:
        assert text in may
        if told.made[text][1] != one.place:
            told.uses[text] = one.place
        assert said(ledger, one) == text, "it stays"
        return
    for outcome in draw.choices(["lost", "answered", "refused"], [2, 4, 1], k=draw.choice([1, 2, 3])):
        dollars = 0.0 if outcome == "refused" else draw.randrange(1, 1000) / 1024
        ledger.end(ledger.begin(one, 9.0), 0.1, outcome, dollars)
        told.attempts.append((one.row, one.place, dollars))
        if outcome == "answered":
            text = f"{one.place} {step} {one.row}"
            ledger.keep(one, Answer("answered", text, cost=dollars), one.place)
            told.made[text] = one.row, one.place
        if outcome == "refused":
            ledger.keep(one, Answer("refused", "", "HTTP 400"), one.place)
            told.refused.add((one.row, one.place))
        if outcome != "lost":
            break


def check_bills(
    ledger: Ledger, told: Told, apis: Sequence[Api], served: dict[tuple[str, str], str | None]
) -> None:
    """Each dollar is on the bill of who took what it bought, once."""
    texts = [(asked, text) for (_, asked), text in served.items() if text is not None]
    assert len(set(texts)) == len(texts), "no two of one name are served by one answer"
    expected = {str(api.base_url): 0.0 for api in apis}
    elsewhere = 0.0
    for asked, place, dollars in told.attempts:
        whose = [
            one
            for one in expected
            if place == one or ((text := served[one, asked]) is not None and told.made[text][1] == place)
        ]
        if not whose and not told.by(asked, place) and not told.contested(place):
            whose = sorted(expected)[:1]
        assert len(whose) <= 1
        if whose:
            expected[whose[0]] += dollars
        else:
            elsewhere += dollars
    paid = {
        str(api.base_url): ledger.paid(api, [question(api, text).question for text in QUESTIONS])
        for api in apis
    }
    assert paid == pytest.approx(expected)
    assert sum(paid.values()) + elsewhere == pytest.approx(ledger.spent())


@pytest.mark.parametrize("seed", range(40))
def test_no_history_gives_ones_answer_to_another_buys_twice_or_loses_a_dollar(
    ledger: Ledger, seed: int
) -> None:
    history(ledger, seed)


def test_who_leaves_a_panel_and_comes_back_finds_its_own(ledger: Ledger) -> None:
    """[A, B], then B alone, then A alone: A was given what B had said, while its own lay beside it."""
    first, second = (question(api) for api in recipe(A, B))
    buy(ledger, first, "by A", 0.5)
    buy(ledger, second, "by B", 0.25)
    for place, text, dollars in ((B, "by B", 0.25), (A, "by A", 0.5), (B, "by B", 0.25)):
        (alone,) = recipe(place)
        assert said(ledger, question(alone)) == text
        assert ledger.bill(alone, [question(alone).question]) == dollars


def test_who_was_told_apart_once_is_asked_itself_when_the_other_has_left(ledger: Ledger) -> None:
    _, second = (question(api) for api in recipe(A, B))
    buy(ledger, second, "by B", 0.25)
    (alone,), (moved,) = recipe(A), recipe(D)
    assert said(ledger, question(alone)) is None
    assert said(ledger, question(moved)) is None, "it may be either, moved"
    assert ledger.count("w", D) == 0 and ledger.count("w", B) == 1
    assert ledger.bill(moved, [question(moved).question]) == 0.0


@pytest.mark.parametrize("places", [(C, D), (C,), (D, A)])
def test_a_panel_that_moves_is_asked_anew_and_not_given_a_mixture(
    ledger: Ledger, places: tuple[str, ...]
) -> None:
    """Row by row whoever asked first got what one of the two had said, and nobody knows which of them it is."""
    for api in recipe(A, B):
        for text in QUESTIONS:
            buy(ledger, question(api, text), f"by {api.base_url}", 0.25)
    lost = question(recipe(A, B)[1], "lost")
    ledger.plan([lost])
    ledger.end(ledger.begin(lost), 0.1, "lost", 0.125)
    for api in recipe(*places):
        asked = [question(api, text) for text in (*QUESTIONS, "lost")]
        own = f"by {A}" if api.base_url == A else None
        ledger.plan(asked)
        assert [said(ledger, one) for one in asked] == [own] * 3 + [None]
        assert ledger.bill(api, [one.question for one in asked]) == (0.75 if own else 0.0)
        seen = [one["answer"] for one in ledger.rows() if one["place"] == api.base_url]
        assert [one and one.text for one in seen] == [None] + [own] * 3


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_what_was_imported_for_one_is_not_its_namesakes(ledger: Ledger, order: tuple[str, str]) -> None:
    """Whichever of the two asked first had it."""
    (alone,) = recipe(A)
    request = question(alone)
    ledger.plan([request])
    assert import_answers(
        ledger, [result(request.key, "A's batch")], {request.key: request}, "out.jsonl"
    ) == (
        1,
        1,
    )
    asked = [question(api) for api in recipe(*order)]
    found = {one.place: text.text for one in asked for text in [ledger.answers(asked).get(one.key)] if text}
    assert found == {A: "A's batch"}


def test_an_old_answer_that_one_lives_off_is_free_when_it_has_its_own(ledger: Ledger) -> None:
    buy(ledger, question(*recipe(C)), "by C", 0.5)
    first, second = (question(api) for api in recipe(A, B))
    assert said(ledger, first) == "by C" and said(ledger, second) is None
    assert said(ledger, question(*recipe(A))) == "by C"
    ledger.keep(first, Answer("answered", "by A"), "results.jsonl")
    assert (said(ledger, first), said(ledger, second)) == ("by A", "by C")


def test_what_one_took_over_stays_when_an_older_one_is_free_again(ledger: Ledger) -> None:
    for place in (C, D):
        request = question(Api(base_url=place, model="w"))
        ledger.plan([request])
        ledger.keep(request, Answer("answered", f"by {place}"), place)
    second, first = (question(api) for api in recipe(B, A))
    assert (said(ledger, second), said(ledger, first)) == (f"by {C}", f"by {D}")
    ledger.keep(second, Answer("answered", "by B"), "results.jsonl")
    assert (said(ledger, second), said(ledger, first)) == ("by B", f"by {D}")


def test_who_made_it_takes_it_back_from_a_namesake_that_took_it_over(ledger: Ledger) -> None:
    (alone,) = recipe(C)
    buy(ledger, question(alone), "by C", 0.5)
    assert said(ledger, question(recipe(A, B)[0])) == "by C"
    first, old = (question(api) for api in recipe(A, C))
    assert said(ledger, first) is None and said(ledger, old) == "by C"


def test_two_namesakes_in_one_look_do_not_share_an_old_answer_however_many_others_are_looked_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond as many keys as one query takes."""
    monkeypatch.setattr("stillhouse.asking.ledger.SOME", 2)
    (old,) = recipe(C)
    for text in QUESTIONS:
        buy(ledger, question(old, text), f"by C: {text}", 0.5)
    first, second = recipe(A, B)
    mine, theirs = ([question(api, text) for text in QUESTIONS] for api in (first, second))
    found = ledger.answers([*mine, *theirs])
    assert [one.key in found for one in mine] == [True] * 3
    assert not any(one.key in found for one in theirs)


def test_a_batch_of_several_namesakes_comes_back_to_each(ledger: Ledger, tmp_path: Path) -> None:
    asked = [question(api, text) for api in recipe(A, B) for text in QUESTIONS]
    ledger.plan(asked)
    lines = [
        (whom, line)
        for path, whom in export_batch(asked, tmp_path / "batch.jsonl").items()
        for line in read_jsonl(path)
    ]
    results = [
        result(line["custom_id"], f"{whom}: {line['body']['messages'][-1]['content']}")
        for whom, line in lines
    ]
    random.Random(0).shuffle(results)
    (row,) = ledger.summary()
    assert (row["requests"], row["open"]) == (6, 6)
    assert import_answers(ledger, results, {one.key: one for one in asked}, "results.jsonl") == (6, 6)
    found = ledger.answers(asked)
    assert [found[one.key].text for one in asked] == [f"w at {one.place}: {one.row}" for one in asked]
    (row,) = ledger.summary()
    assert (row["requests"], row["answered"], row["open"]) == (6, 6, 0)


def test_what_is_open_is_what_is_wanted_now_wherever_it_was_before(ledger: Ledger) -> None:
    (old,), (new,) = recipe(C), recipe(A)
    ledger.plan([question(old, text) for text in QUESTIONS])
    buy(ledger, question(old), "by C", 0.5)
    asked = [question(new, text) for text in QUESTIONS]
    ledger.plan(asked)
    assert len(ledger.answers(asked)) == 1
    (row,) = ledger.summary()
    assert (row["requests"], row["answered"], row["open"]) == (3, 1, 2)
    assert [(one["row"], one["place"], one["answer"] and one["answer"].text) for one in ledger.rows()] == [
        ("one", A, "by C"), ("three", A, None), ("two", A, None),
    ]  # fmt: skip


def test_a_batch_is_known_by_the_name_under_which_it_went_out(ledger: Ledger) -> None:
    """Alone, before a namesake joined; or beside one that has left."""
    (alone,), (beside, other) = recipe(A), recipe(A, B)
    first, second = question(beside), question(alone, "two")
    names = question(alone).key, question(beside, "two").key
    assert names[0] != first.key and names[1] != second.key
    for one, name in zip((first, second), names, strict=True):
        ledger.plan([one])
        assert import_answers(ledger, [result(name, "paid")], {one.key: one}, "out.jsonl") == (1, 1)
    both = {one.key: one for one in (question(beside, "three"), question(other, "three"))}
    unclear = [result(question(alone, "three").key, "whose?")]
    assert import_answers(ledger, unclear, both, "out.jsonl") == (0, 1), "of two, nobody knows which"


def test_a_file_that_is_taken_again_does_not_change_what_is_answered(ledger: Ledger) -> None:
    """`answers:` is read at every start, also once the endpoint has moved."""
    (old,), (new,) = recipe(A), recipe(B)
    buy(ledger, question(old), "live", 0.5)
    moved = question(new)
    assert import_answers(ledger, [result(moved.key, "past")], {moved.key: moved}, "past.jsonl") == (1, 1)
    assert said(ledger, moved) == "live"


# ── ledgers of version 1 ────────────────────────────────────────────────────────────────────────────────────────────

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
