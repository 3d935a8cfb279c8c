"""The runs of a plan whose teacher is behind an API pay for each question once, together."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint
from stillhouse.asking import Ledger, ledger_of
from stillhouse.files import read_json
from stillhouse.plans.bench import Bench
from stillhouse.plans.expand import expand
from stillhouse.progress import Silent
from stillhouse.recipe import load_recipe, parse_recipe
from stillhouse.steps.hearing import questions
from typed import hurried, stillhouse, write_recipe

PROMPTS = 14


def texts(folder: Path, url: str, sweep: dict[str, Any], **api: Any) -> Path:
    """A recipe over PROMPTS prompts, two of them held out; an answer of two words costs $0.02, what is read nothing."""
    tiny.save_language_model(folder / "base", layers=1)
    rows = [{"prompt": f"{text} Why?"} for text in tiny.sentences(PROMPTS)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    price = {"input": 0.0, "output": 10_000.0}
    return write_recipe(folder / "r.yaml", {
        "name": "paid", "task": "causal_lm", "student": {"model": str(folder / "base")},
        "teacher": {"api": {"base_url": url, "model": "big", "max_tokens": 4, "price": price, **api}},
        "data": {"train": {"source": str(folder / "prompts.jsonl")}, "split": 2, "max_length": 48},
        "objective": [{"kind": "hard"}], "sweep": sweep,
        "train": {"steps": 1, "batch_size": 2, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False}, "report": {"samples": 0},
    })  # fmt: skip


def test_a_sweep_asks_each_question_once_and_its_price_says_so(tmp_path: Path) -> None:
    with Endpoint(lambda body: "because rivers") as endpoint, hurried():
        recipe = texts(tmp_path, endpoint.url, {"train.learning_rate": [1e-4, 1e-3]})
        said = stillhouse("plan", recipe, "--folder", tmp_path / "plan", "--format", "json")
        assert said.code == 0, said.err
        price = json.loads(said.out)
        assert not endpoint.seen.delivered, "a forecast asks nobody"
        assert price["money"] == pytest.approx(PROMPTS * 0.04), "four tokens at most for each prompt, once"
        said = stillhouse("run", recipe, "--folder", tmp_path / "plan")
        assert said.code == 0, said.err
        assert len(endpoint.seen.delivered) == PROMPTS
        assert set(endpoint.seen.delivered.values()) == {1}
    runs = sorted((tmp_path / "plan" / "runs").iterdir())
    assert len(runs) == 2
    examples = [read_json(run / "label" / "DONE.json")["result"]["examples"] for run in runs]
    assert examples == [PROMPTS - 2, PROMPTS - 2]
    assert stillhouse("label", "ls", runs[1]).out == stillhouse("label", "ls", runs[0]).out
    with Ledger(ledger_of(runs[0], "ledger.sqlite")) as ledger:
        assert ledger.spent() == pytest.approx(PROMPTS * 0.02)


def test_settings_that_change_no_question_cost_nothing_more_even_where_their_rows_are_prepared_anew(
    tmp_path: Path,
) -> None:
    with Endpoint(lambda body: "because rivers") as endpoint, hurried():
        recipe = texts(tmp_path, endpoint.url, {"data.max_length": [40, 48]})
        said = stillhouse("plan", recipe, "--folder", tmp_path / "plan", "--format", "json")
        assert json.loads(said.out)["money"] == pytest.approx(PROMPTS * 0.04)


def test_max_cost_holds_over_all_runs_of_a_plan_and_what_was_bought_until_then_is_kept(
    tmp_path: Path,
) -> None:
    """Two runs with questions of their own: the bound is passed in the second, and a larger one goes on from there."""
    with Endpoint(lambda body: "because rivers") as endpoint, hurried():
        sweep = {"teacher.api.max_tokens": [3, 4]}
        recipe = texts(tmp_path, endpoint.url, sweep, max_cost=PROMPTS * 0.02 + 0.1)
        said = stillhouse("run", recipe, "--folder", tmp_path / "plan")
        assert said.code == 5, said.err
        assert "teacher.api.max_cost" in said.err
        bought = sum(endpoint.seen.delivered.values())
        assert PROMPTS < bought <= PROMPTS + 5
        said = stillhouse("run", recipe, "--folder", tmp_path / "plan", "--set", "teacher.api.max_cost=9.0")
        assert said.code == 0, said.err
        assert len(endpoint.seen.delivered) == 2 * PROMPTS
        assert set(endpoint.seen.delivered.values()) == {1}


def test_a_sweep_over_addresses_asks_at_each(tmp_path: Path) -> None:
    """The second run took what the first one's server had said; that is right where a server moved, and here it compares nothing."""
    with Endpoint(lambda body: "because rivers") as one, Endpoint(lambda body: "the old") as other, hurried():
        recipe = texts(tmp_path, one.url, {"teacher.api.base_url": [one.url, other.url]})
        said = stillhouse("plan", recipe, "--folder", tmp_path / "plan", "--format", "json")
        assert said.code == 0, said.err
        assert json.loads(said.out)["money"] == pytest.approx(2 * PROMPTS * 0.04)
        said = stillhouse("run", recipe, "--folder", tmp_path / "plan")
        assert said.code == 0, said.err
        for endpoint in (one, other):
            assert list(endpoint.seen.delivered.values()) == [1] * PROMPTS
    plan = expand(load_recipe(recipe))
    bench = Bench(tmp_path / "plan", Silent())
    bench.meet(plan.runs)
    with Ledger(tmp_path / "plan" / "ledger.sqlite") as ledger:
        for run, words in zip(plan.runs, ("because rivers", "the old"), strict=True):
            api = bench.recipe(run).teacher.api
            assert api is not None
            asked = questions(api, "causal_lm", [], bench.place(run.name) / "prepare")
            requests = [one for _, some in asked.values() for one in some]
            assert {answer.text for answer in ledger.answers(requests).values()} == {words}
            bill = ledger.bill(api, {one.question for one in requests})
            assert bill == pytest.approx(PROMPTS * 0.02)


def test_judges_of_one_name_that_a_sweep_tries_at_two_addresses_judge_each_for_itself(tmp_path: Path) -> None:
    """Their ledger is another than the teachers', who are no namesakes of theirs."""
    places = ["http://one/v1", "http://two/v1"]
    recipe = parse_recipe({
        "name": "judged", "task": "causal_lm", "student": {"model": "small"},
        "teacher": {"api": {"base_url": "http://three/v1", "model": "big"}},
        "data": {"train": {"source": "rows.jsonl"}}, "objective": [{"kind": "hard"}],
        "evaluate": {"answers": {}, "judge": {"api": {"base_url": places[0], "model": "big"}}},
        "sweep": {"evaluate.judge.api.base_url": places},
    })  # fmt: skip
    bench = Bench(tmp_path, Silent())
    runs = expand(recipe).runs
    bench.meet(runs)
    made = [bench.recipe(run) for run in runs]
    assert [one.evaluate.judge.api.namesakes for one in made] == [("http://two/v1",), ("http://one/v1",)]  # type: ignore[union-attr]
    assert [one.teacher.api.namesakes for one in made] == [(), ()]  # type: ignore[union-attr]


def test_a_run_that_is_none_of_a_plans_has_its_own_ledger_and_one_that_began_its_own_keeps_it(
    tmp_path: Path,
) -> None:
    run = tmp_path / "runs" / "a"
    assert ledger_of(run, "l.sqlite") == run / "l.sqlite"
    Ledger(tmp_path / "l.sqlite").close()
    assert ledger_of(run, "l.sqlite") == tmp_path / "l.sqlite"
    Ledger(run / "l.sqlite").close()
    assert ledger_of(run, "l.sqlite") == run / "l.sqlite"
