"""Plans whose teacher is asked in words: each question once, and no later run that it cannot teach."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint, prompt_of
from plans.kitchen import always_better
from stillhouse.asking import Answer, Ledger, chat
from stillhouse.errors import RecipeError
from stillhouse.files import read_json, read_jsonl, write_json
from stillhouse.plans.bench import Bench
from stillhouse.plans.check import refuse_rounds
from stillhouse.plans.expand import expand
from stillhouse.plans.rounds import _Rounds, has_hard_only, rows_asked
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from typed import Said, hurried, stillhouse, write_recipe

ROUNDS: dict[str, Any] = {"kind": "rounds", "by": "uncertainty", "rows": 4, "most": 1}
PRICE = {"input": 0.0, "output": 10_000.0}
"""Of an answer of one word: a cent."""


def says(body: dict[str, Any]) -> str:
    """The label of a sentence of `tiny.labelled_file`."""
    return "good" if prompt_of(body).count("good") > prompt_of(body).count("bad") else "bad"


def values(
    folder: Path, plan: dict[str, Any], url: str = "http://127.0.0.1:9/v1", **changes: Any
) -> dict[str, Any]:
    """Sentences with labels for training and measuring, more without them to choose from, and a student of one layer."""
    if not (folder / "student").exists():
        tiny.save_classifier(folder / "student", layers=1)
        tiny.labelled_file(folder / "rows.csv", rows=30)
        fresh = tiny.labelled_file(folder / "fresh.csv", rows=20, seed=9).read_text().splitlines()[1:]
        lines = [json.dumps({"text": line.rpartition(",")[0]}) for line in fresh]
        (folder / "pool.jsonl").write_text("\n".join(lines) + "\n")
    if plan["kind"] == "rounds":
        plan = {"pool": {"source": str(folder / "pool.jsonl")}, **plan}
    return {
        "name": "asked", "task": "classification", "student": {"model": str(folder / "student")}, "plan": plan,
        "teacher": {"api": {"base_url": url, "model": "big", "price": PRICE, "max_tokens": 1}},
        "data": {"train": {"source": str(folder / "rows.csv")}, "split": 10, "max_length": 32},
        "objective": [{"kind": "forward_kl"}],
        "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False}, "report": {"samples": 0}, **changes,
    }  # fmt: skip


def command(name: str, plain: dict[str, Any], folder: Path, *more: str) -> Said:
    with hurried():
        return stillhouse(name, write_recipe(folder.with_suffix(".yaml"), plain), "--folder", folder, *more)


def test_rounds_ask_an_api_about_the_chosen_rows_alone_and_each_once(tmp_path: Path) -> None:
    with Endpoint(says) as endpoint:
        plain = values(tmp_path, ROUNDS, endpoint.url, evaluate={"resamples": 200, "speed": False})
        priced = command("plan", plain, tmp_path / "rounds", "--format", "json")
        assert priced.code == 0, priced.err
        assert not endpoint.seen.delivered, "a forecast asks nobody"
        with always_better():
            said = command("run", plain, tmp_path / "rounds")
        assert said.code == 0, said.err
        assert set(endpoint.seen.delivered.values()) == {1}
        asked_for = len(endpoint.seen.delivered)
    folder = tmp_path / "rounds"
    chosen = {
        row["text"]
        for name in ("round-1", "random-1")
        for row in read_jsonl(folder / "chosen" / f"{name}.jsonl")
    }
    assert 4 <= len(chosen) <= 8
    assert asked_for == 30 + len(chosen), (
        "training rows, held-out rows, and no row of the pool that nobody chose"
    )
    with Ledger(folder / "ledger.sqlite") as ledger:
        assert ledger.spent() == pytest.approx(0.01 * asked_for)
    assert json.loads(priced.out)["money"] == pytest.approx(0.01 * (30 + 2 * ROUNDS["rows"]))
    found = read_json(folder / "results.json")
    assert [row["name"] for row in found["runs"]] == ["round-0", "round-1", "random-1", "hard-only"]


def test_rounds_by_what_the_teacher_says_of_the_whole_pool_are_refused_where_it_must_be_asked(
    tmp_path: Path,
) -> None:
    for by in ("divergence", "errors"):
        with pytest.raises(
            RecipeError, match=rf"plan.by: {by} compares .* teacher.api would .* use uncertainty"
        ):
            parse_recipe(values(tmp_path, {**ROUNDS, "by": by, "pool": {"source": "x.csv"}}))


@pytest.mark.parametrize(
    ("dollars", "why"), [(0.18, None), (0.17, "would cost about $0.0800: $0.1000 of the budget of $0.17")]
)
def test_a_round_is_begun_only_if_its_answers_and_the_controls_fit_the_budget(
    tmp_path: Path, dollars: float, why: str | None
) -> None:
    """Ten answers for a cent each; a round and its control ask for four each."""
    recipe = parse_recipe(values(tmp_path, {**ROUNDS, "budget": {"dollars": dollars}}))
    api = recipe.teacher.api
    assert api is not None
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.plan(
            some := [chat(api, str(number), row=str(number), purpose="train") for number in range(10)]
        )
        for one in some:
            ledger.keep(one, Answer("answered", "good", "", (), 1, 1, 0.01), "here")
            ledger.end(ledger.begin(one), 0.1, "answered", 0.01)
    facts = {"sets": {"train": {"rows": 7}, "eval": {"rows": 3}}, "evaluated": ["eval"]}
    write_json(tmp_path / "runs" / "round-0" / "prepare" / "DONE.json", {"result": facts})
    going = _Rounds(recipe, recipe.plan, Bench(tmp_path, Silent()))  # type: ignore[arg-type]
    said = going._over_budget(1, begun=False)
    assert going._over_budget(1, begun=True) is None, "what it chose is asked and paid for: it is finished"
    assert (said is None) == (why is None)
    assert why is None or why in str(said)


def test_a_round_that_was_begun_with_other_settings_has_to_fit_the_budget_again(tmp_path: Path) -> None:
    def going(**changes: Any) -> _Rounds:
        recipe = parse_recipe(values(tmp_path, {**ROUNDS, "budget": {"dollars": 0.1}, **changes}))
        return _Rounds(recipe, recipe.plan, Bench(tmp_path, Silent()))  # type: ignore[arg-type]

    write_json(tmp_path / "runs" / "round-0" / "train" / "DONE.json", {"result": {"identity": "student"}})
    first, left = going(), dict.fromkeys("abc")
    assert not first._is_begun("round-1", "round-0", left)  # type: ignore[arg-type]
    mark = first._mark(first._models_of("round-0"), left)  # type: ignore[arg-type]
    write_json(tmp_path / "chosen" / "round-1.json", {"from": mark, "keys": ["a"], "seconds": 0.0})
    assert first._is_begun("round-1", "round-0", left)  # type: ignore[arg-type]
    more = going(rows=ROUNDS["rows"] + 1)
    assert not more._is_begun("round-1", "round-0", left)  # type: ignore[arg-type]


def test_a_budget_of_nothing_or_in_dollars_that_nobody_counts_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="seconds: is required and not there; add it .or dollars"):
        parse_recipe(values(tmp_path, {**ROUNDS, "budget": {}}))
    unpriced = values(tmp_path, {**ROUNDS, "budget": {"dollars": 1.0}})
    unpriced["teacher"]["api"]["price"] = None
    with pytest.raises(RecipeError, match="plan.budget.dollars: nobody with a price"):
        refuse_rounds(parse_recipe(unpriced))


@pytest.mark.parametrize("shape", ["without a head", "from a config"])
def test_plans_of_students_that_an_api_teaches_are_checked_and_priced_with_any_student(
    tmp_path: Path, shape: str
) -> None:
    """An encoder without a classifier was refused as a teacher, and a student from a config could not be measured."""
    plain = values(tmp_path, {"kind": "phases", "phases": [{"name": "one"}, {"name": "two"}]})
    if shape == "without a head":
        tiny.save_encoder(tmp_path / "bare", layers=1)
        plain["student"], plain["plan"] = (
            {"model": str(tmp_path / "bare")},
            {"kind": "generations", "count": 2},
        )
    else:
        size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        plain["student"] = {
            "from_config": {"config": size, "embeddings": "random"},
            "tokenizer": str(tmp_path / "student"),
        }
    said = command("plan", plain, tmp_path / "plan", "--format", "json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["money"] == pytest.approx(0.3)


def test_rows_of_prompts_alone_are_counted_as_they_are_asked_and_none_before_they_are_prepared(
    tmp_path: Path,
) -> None:
    """An API's texts make the examples, so that there are none of them before: a row cost all that round 0 did."""
    assert rows_asked(tmp_path) == 0
    sets = {"train": {"rows": 0, "asked": 30}, "eval": {"rows": 4}}
    write_json(tmp_path / "prepare" / "DONE.json", {"result": {"sets": sets, "evaluated": ["eval"]}})
    assert rows_asked(tmp_path) == 34


def test_assistants_from_a_config_have_the_tokenizer_of_the_one_that_teaches_them(tmp_path: Path) -> None:
    sizes = [{"from_config": {"config": {"hidden_size": 8 * n}}, "tokenizer": "a/b"} for n in (3, 2)]
    plain = values(tmp_path, {"kind": "assistants", "sizes": sizes})
    by_name = {one.name: one.values for one in expand(parse_recipe(plain)).runs}
    assert [by_name[name]["student"]["tokenizer"] for name in ("assistant-1", "assistant-2")] == ["a/b", None]


def test_rounds_of_an_apis_texts_have_no_control_that_would_learn_them_as_well(tmp_path: Path) -> None:
    """Its texts are hard targets, so hard targets alone would be the product again."""
    for task, controlled in (("classification", True), ("causal_lm", False)):
        plain = values(tmp_path, ROUNDS, task=task, evaluate={"resamples": 200})
        plain["objective"] = [{"kind": "forward_kl" if controlled else "hard"}]
        assert has_hard_only(parse_recipe(plain)) is controlled


def test_later_generations_learn_from_a_student_that_an_api_taught_and_it_is_asked_once(
    tmp_path: Path,
) -> None:
    plan, runs = {"kind": "generations", "count": 2}, ["generation-1", "generation-2", "longer", "ensemble"]
    with Endpoint(says) as endpoint:
        plain = values(tmp_path, plan, endpoint.url)
        priced = command("plan", plain, tmp_path / "plan", "--format", "json")
        assert priced.code == 0, priced.err
        assert json.loads(priced.out)["money"] == pytest.approx(0.3)
        said = command("run", plain, tmp_path / "plan")
        assert said.code == 0, said.err
        assert len(endpoint.seen.delivered) == 30
        assert set(endpoint.seen.delivered.values()) == {1}
    assert [row["name"] for row in read_json(tmp_path / "plan" / "results.json")["runs"]] == runs


def test_texts_of_an_api_are_not_what_a_later_student_teaches(tmp_path: Path) -> None:
    plain = values(tmp_path, {"kind": "generations"}, task="causal_lm", objective=[{"kind": "hard"}])
    with pytest.raises(
        RecipeError, match=r"the later teachers of generations are students .* teacher.api wrote"
    ):
        parse_recipe(plain)
