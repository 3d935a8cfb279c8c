"""What a student's making is counted as: its own questions to APIs, each once, and nobody else's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse.asking import LEDGER, Answer, Ledger, Request
from stillhouse.files import write_jsonl
from stillhouse.recipe import parse_recipe
from stillhouse.report.paid import paid_in_words
from stillhouse.steps.hearing import questions
from stillhouse.steps.paid import asked_per_million, dollars_paid, economics_of
from stillhouse.teachers.api_writer import ApiWriter, paid_to

URL = "http://localhost:1/v1"
PRICE = {"input": 1.0, "output": 4.0}


def recipe_with(task: str = "causal_lm", **api: Any) -> Any:
    asked = {"base_url": URL, "model": "big", "price": PRICE, **api}
    term = {"kind": "forward_kl"} if task == "classification" else {"kind": "hard"}
    return parse_recipe({
        "name": "r", "task": task, "teacher": {"api": asked}, "student": {"model": "small"},
        "data": {"train": {"source": "rows.jsonl"}}, "objective": [term],
        "report": {"prices": {"machine_per_hour": 3.6}},
    })  # fmt: skip


def bought(ledger: Ledger, requests: list[Request], dollars: float, read: int = 30, tokens: int = 10) -> None:
    """Each is answered at the second try; the first one was lost, and billed half."""
    ledger.plan(requests)
    for one in requests:
        ledger.end(ledger.begin(one), 0.1, "lost", dollars / 2)
        ledger.end(ledger.begin(one), 0.1, "answered", dollars)
        ledger.keep(one, Answer("answered", "yes", "stop", (), read, tokens, dollars), URL)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a plan, whose runs have one ledger, with four questions; another run had a fifth answered, which was dear."""
    place = tmp_path / "plan" / "runs" / "a"
    (place / "prepare").mkdir(parents=True)
    for name, numbers in (("train", range(3)), ("eval", range(3, 4))):
        rows = [{"id": f"i{n}", "prompt": f"What is {n}?", "text": f"text {n}"} for n in numbers]
        write_jsonl(place / "prepare" / f"asked-{name}.jsonl", rows)
    with Ledger(tmp_path / "plan" / LEDGER) as ledger:
        asked = questions(recipe_with().teacher.api, "causal_lm", [], place / "prepare")
        bought(ledger, [one for _, some in asked.values() for one in some], 0.02)
        bought(ledger, [Request("/chat", {"model": "big", "prompt": "another run's"}, "x", "train")], 100.0)
    return place


FACTS: dict[str, Any] = {"counts": {}, "labels": [], "sets": {"train": {}, "eval": {}}}


def test_a_run_of_a_plan_counts_what_it_asked_and_what_was_lost_on_the_way(run: Path) -> None:
    judged = {"judge": "j", "cost": 0.5}
    assert dollars_paid(recipe_with(), FACTS, None, run) == {"teacher.api": pytest.approx(4 * 0.03)}
    assert dollars_paid(recipe_with(), FACTS, judged, run)["evaluate.judge.api"] == 0.5
    counts = {"written": {"paid": {"teacher.api": 1.0, "data.writer.api": None}}}
    both = dollars_paid(recipe_with(), {**FACTS, "counts": counts}, None, run)
    assert both == {"teacher.api": pytest.approx(1.0 + 4 * 0.03), "data.writer.api": None}


def test_an_api_without_a_price_is_named_and_not_counted_as_free(run: Path) -> None:
    paid = dollars_paid(recipe_with(price=None), FACTS, None, run)
    assert paid == {"teacher.api": None}
    models: dict[str, Any] = {
        name: {"throughput": {"generate": speed}} for name, speed in (("teacher", 1.0), ("student", 9.0))
    }
    found = economics_of(recipe_with(price=None), FACTS, models, None, 1000.0, run)
    assert found is not None
    assert "Not counted, for no price is known: teacher.api." in paid_in_words(found)


def test_a_teachers_million_costs_what_its_answers_did(run: Path) -> None:
    """What it read is in the price of what it wrote; a row is an answer, however long.  What another run of the plan asked is dearer, and
    does not count."""
    assert asked_per_million(recipe_with(), FACTS, run, writes=True) == pytest.approx(1e6 * 0.02 / 10)
    assert asked_per_million(recipe_with(), FACTS, run, writes=False) == pytest.approx(1e6 * 0.02)
    silent = recipe_with(model="another")
    assert asked_per_million(silent, FACTS, run, writes=True) == PRICE["output"]
    assert asked_per_million(silent, FACTS, run, writes=False) is None
    assert asked_per_million(recipe_with(price=None), FACTS, run, writes=True) is None


def test_break_even_holds_the_machine_and_the_api_and_says_so(run: Path) -> None:
    models: dict[str, Any] = {"teacher": {}, "student": {"throughput": {"generate": 100.0}}}
    found = economics_of(recipe_with(), FACTS, models, None, 1000.0, run)
    assert found is not None
    assert found["making"] == pytest.approx(1.0 + 4 * 0.03)
    assert found["teacher_per_million"] == pytest.approx(2000.0)
    assert found["break_even_requests"] == pytest.approx(1.12 / ((2000.0 - 10.0) / 1e6))
    says = " ".join(paid_in_words(found))
    assert "the machine's time (1.00) and teacher.api (0.120)" in says
    assert "what it read for them included" in says


def test_a_price_that_the_recipe_gives_goes_before_the_apis(run: Path) -> None:
    recipe = recipe_with()
    prices = recipe.report.prices.model_copy(update={"teacher_per_million": 50.0})
    given = SimpleNamespace(task="causal_lm", teacher=recipe.teacher, report=SimpleNamespace(prices=prices))
    models: dict[str, Any] = {"teacher": {}, "student": {"throughput": {"generate": 100.0}}}
    found = economics_of(given, FACTS, models, None, 1000.0, run)
    assert found is not None
    assert (found["teacher_per_million"], found["teacher_priced_by"]) == (
        50.0,
        "report.prices.teacher_per_million",
    )


def test_a_writers_texts_are_counted_by_the_field_that_names_it(tmp_path: Path) -> None:
    api = recipe_with().teacher.api
    writers = [ApiWriter(api, "data.writer.api"), ApiWriter(api.model_copy(update={"price": None}), "free")]
    mine = [Request("/chat", {"model": "big", "prompt": f"{n}"}, f"{n}", "answers") for n in range(2)]
    with Ledger(tmp_path / LEDGER) as ledger:
        bought(ledger, mine, 0.1)
        bought(ledger, [Request("/chat", {"model": "big", "prompt": "x"}, "x", "train")], 7.0)
    writers[0].asked = {one.question for one in mine}
    paid = paid_to([*writers, object()], tmp_path / LEDGER)
    assert paid == {"data.writer.api": pytest.approx(2 * 0.15), "free": None}
