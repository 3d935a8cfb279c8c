"""Whose an answer is among models of one name, case by case."""

import random
from pathlib import Path

import pytest

from namesakes import QUESTIONS, A, B, C, D, buy, question, recipe, result, said
from stillhouse.asking import Answer, Ledger
from stillhouse.asking.files import export_batch
from stillhouse.files import read_jsonl
from stillhouse.recipe import Api
from stillhouse.teachers.past import import_answers


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
