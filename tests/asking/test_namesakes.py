"""Models of one name at two addresses: what one answers is never taken for the other's, and what an older ledger holds is not bought again."""

from collections.abc import Iterator

import pytest

from endpoint import Endpoint
from stillhouse.asking import Answer, Ledger, Request, ask, chat
from stillhouse.files import hash_json
from stillhouse.recipe import Api, parse_recipe

STORED = Api(model="w", answers="past.jsonl")


@pytest.fixture
def first() -> Iterator[Endpoint]:
    with Endpoint(lambda body: "the first says") as endpoint:
        yield endpoint


@pytest.fixture
def second() -> Iterator[Endpoint]:
    with Endpoint(lambda body: "the second says") as endpoint:
        yield endpoint


def teacher_and_writer(first: str, second: str) -> tuple[Api, Api]:
    """Of a recipe that names a model "w" at both addresses."""
    recipe = parse_recipe({
        "name": "box", "task": "causal_lm", "teacher": {"api": {"base_url": first, "model": "w"}},
        "student": {"model": "small"}, "objective": [{"kind": "hard"}],
        "data": {"train": {"source": "rows.jsonl"}, "generate": [{"kind": "answers"}],
                 "writer": {"api": {"base_url": second, "model": "w"}}},
    })  # fmt: skip
    assert recipe.teacher.api is not None and recipe.data.writer is not None
    assert recipe.data.writer.api is not None
    return recipe.teacher.api, recipe.data.writer.api


def question(api: Api, purpose: str = "train") -> Request:
    return chat(api, "the question", row="0", purpose=purpose)


def said(api: Api, ledger: Ledger, purpose: str = "train") -> str | None:
    (answer,) = ask(api, [question(api, purpose)], ledger)
    return answer and answer.text


def test_teacher_and_writer_of_one_name_answer_each_for_itself(
    ledger: Ledger, first: Endpoint, second: Endpoint
) -> None:
    teacher, writer = teacher_and_writer(first.url, second.url)
    for _ in range(2):
        assert said(writer, ledger) == "the second says"
        assert said(teacher, ledger) == "the first says"
    assert (len(first.bodies), len(second.bodies)) == (1, 1)
    assert first.bodies == second.bodies, "they are asked the very same"


def test_at_one_address_they_are_one_model_and_are_asked_once(ledger: Ledger, first: Endpoint) -> None:
    teacher, writer = teacher_and_writer(first.url, first.url)
    assert said(writer, ledger) == said(teacher, ledger) == "the first says"
    assert len(first.bodies) == 1
    assert question(teacher).key == hash_json([question(teacher).path, question(teacher).body]), (
        "or every ledger would be paid for again"
    )


def test_an_answer_from_before_the_namesake_stays_with_who_gave_it(
    ledger: Ledger, first: Endpoint, second: Endpoint
) -> None:
    """A ledger in which the teacher's answer lies under the question alone, as those of one name did before, both of them."""
    assert said(Api(base_url=first.url, model="w"), ledger) == "the first says"
    teacher, writer = teacher_and_writer(first.url, second.url)
    assert said(writer, ledger) == "the second says"
    assert said(teacher, ledger) == "the first says"
    assert (len(first.bodies), len(second.bodies)) == (1, 1)
    (row,) = ledger.summary()
    assert (row["requests"], row["answered"], row["open"]) == (2, 2, 0), "and none is counted twice"


@pytest.mark.parametrize("source", ["past.jsonl", "http://where-it-was.before/v1"])
def test_answers_of_unknown_origin_are_not_bought_again(ledger: Ledger, first: Endpoint, source: str) -> None:
    """From a file, or from an address that the endpoint has left."""
    alone = question(Api(base_url=source, model="w") if "//" in source else STORED)
    ledger.plan([alone])
    ledger.keep(alone, Answer("answered", "old"), source)
    teacher, _ = teacher_and_writer(first.url, "http://elsewhere/v1")
    assert said(teacher, ledger) == "old" and not first.bodies


def test_an_answer_of_unknown_origin_is_one_endpoints_and_never_both(
    ledger: Ledger, first: Endpoint, second: Endpoint
) -> None:
    """Or a panel of the two would agree with itself."""
    alone = question(STORED)
    ledger.plan([alone])
    ledger.keep(alone, Answer("answered", "old"), "past.jsonl")
    teacher, writer = teacher_and_writer(first.url, second.url)
    assert said(teacher, ledger) == "old"
    assert said(writer, ledger) == "the second says"
    assert said(teacher, ledger) == "old" and not first.bodies


def test_what_was_paid_for_an_answer_is_known_after_a_namesake_has_joined(
    ledger: Ledger, first: Endpoint, second: Endpoint
) -> None:
    alone = question(Api(base_url=first.url, model="w"))
    ledger.plan([alone])
    ledger.end(ledger.begin(alone), 0.1, "answered", 0.5)
    ledger.keep(alone, Answer("answered", "old", cost=0.5), first.url)
    teacher, _ = teacher_and_writer(first.url, second.url)
    assert said(teacher, ledger) == "old"
    assert ledger.bill(teacher, [question(teacher).question]) == 0.5 == ledger.spent()
    assert ledger.bill(Api(base_url=first.url, model="w"), [alone.question]) == 0.5, "and once it has left"


def test_an_endpoint_that_refuses_everything_is_not_believed_for_what_its_namesake_answered(
    ledger: Ledger, first: Endpoint
) -> None:
    teacher, _ = teacher_and_writer(first.url, "http://elsewhere/v1")
    for number in range(200):
        other = chat(Api(base_url="http://elsewhere/v1", model="w"), f"{number}", row="0", purpose="train")
        ledger.plan([other])
        ledger.keep(other, Answer("answered", "yes"), "http://elsewhere/v1")
    assert ledger.count("w", first.url) == 200
    ledger.plan([question(teacher)])
    assert ledger.count("w", first.url) == 0


def test_a_recipe_that_loses_the_namesake_buys_nothing_again(
    ledger: Ledger, first: Endpoint, second: Endpoint
) -> None:
    teacher, _ = teacher_and_writer(first.url, second.url)
    assert said(teacher, ledger) == "the first says"
    assert said(Api(base_url=first.url, model="w"), ledger) == "the first says"
    assert len(first.bodies) == 1 and not second.bodies
    (row,) = ledger.summary()
    assert (row["requests"], row["answered"], row["open"]) == (1, 1, 0)


def test_a_refusal_is_not_taken_for_a_namesakes(ledger: Ledger, first: Endpoint) -> None:
    alone = question(STORED)
    ledger.plan([alone])
    ledger.keep(alone, Answer("refused", "", "HTTP 400: too long"), "errors.jsonl")
    teacher, _ = teacher_and_writer(first.url, "http://elsewhere/v1")
    assert said(teacher, ledger) == "the first says"
