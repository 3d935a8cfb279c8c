"""Whose an answer is, over random histories of recipes that gain, lose, move and import for models of one name."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from namesakes import QUESTIONS, STORED, A, B, C, D, question, recipe, result, said
from stillhouse.asking import Answer, Ledger, Request
from stillhouse.recipe import Api
from stillhouse.teachers.past import import_answers


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
