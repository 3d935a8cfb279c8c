"""Ranking candidate teachers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
from stillhouse.errors import RecipeError
from stillhouse.kept import RowIndex, rows_path, write_rows
from stillhouse.measure import CLASSIFICATION_METRICS, LM_METRICS
from stillhouse.plans.select import probe, rank_teachers, ranked
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from typed import stillhouse, write_recipe

LM = SimpleNamespace(headline="bits_per_byte", metrics=LM_METRICS)


def keep(place, columns, clusters=None):
    """What an evaluation leaves of its student, in a run folder; each row is a document of its own if nothing is said."""
    names = [str(number) for number in range(len(next(iter(columns.values()))))]
    (place / "evaluate").mkdir(parents=True)
    index = RowIndex(names, names, clusters or names, [9] * len(names), [None] * len(names))
    index.write(place / "evaluate", "eval")
    write_rows(rows_path(place / "evaluate", "student", "eval"), columns)


def tried(tmp_path, name, nats, fits=True, clusters=None):
    """A candidate whose student has these nats in each row of 100 bytes."""
    if fits:
        columns = {"nll": np.asarray(nats, dtype=np.float64), "bytes": np.full(len(nats), 100.0)}
        keep(tmp_path / name, columns, clusters)
    return {"candidate": name, "fits": fits, "student": {"value": float(np.mean(nats))}, "why": None}


def test_the_order_is_that_of_the_students_and_misfits_come_last(tmp_path):
    noise = np.random.default_rng(0).normal(0.0, 1.0, 60)
    rows = [
        tried(tmp_path, "no", [0.0], fits=False),
        tried(tmp_path, "worse", 90.0 + noise),
        tried(tmp_path, "best", 70.0 + noise),
        tried(tmp_path, "middle", 80.0 + noise),
    ]
    found = ranked(rows, LM, {row["candidate"]: tmp_path / row["candidate"] for row in rows}, 0)
    assert [row["candidate"] for row in found["candidates"]] == ["best", "middle", "worse", "no"]
    assert found["recommended"] == "best" and "do not tell" not in found["because"]
    assert found["candidates"][1]["behind"]["low"] > 0  # more bits are worse


def test_where_higher_is_better_the_order_turns_round(tmp_path):
    task = SimpleNamespace(headline="accuracy", metrics=CLASSIFICATION_METRICS)
    rows = []
    for name, right in (("low", 0.4), ("high", 0.8)):
        needed = task.metrics["accuracy"].columns
        columns = {column: np.full(50, right if "correct" in column else 1.0) for column in needed}
        keep(tmp_path / name, columns)
        rows.append({"candidate": name, "fits": True, "student": {"value": right}})
    found = ranked(rows, task, {name: tmp_path / name for name in ("low", "high")}, 0)
    assert found["recommended"] == "high"


def test_a_difference_within_the_noise_is_said(tmp_path):
    draw = np.random.default_rng(1)
    rows = [tried(tmp_path, name, draw.normal(80.0, 20.0, 30)) for name in ("a", "b")]
    found = ranked(rows, LM, {row["candidate"]: tmp_path / row["candidate"] for row in rows}, 0)
    assert "do not tell it from" in found["because"]


def test_rows_of_one_document_are_not_taken_for_independent_ones(tmp_path):
    """30 documents of 20 rows, alike within each: by rows the candidates differ surely, by documents they do not."""
    draw = np.random.default_rng(3)
    of_document = np.repeat(draw.normal(1.0, 4.0, 30), 20)
    clusters = [str(number // 20) for number in range(600)]
    apart = {}
    for how, named in (("rows", None), ("documents", clusters)):
        place = tmp_path / how
        rows = [tried(place, "a", np.full(600, 80.0), clusters=named)]
        rows.append(tried(place, "b", 80.0 + of_document, clusters=named))
        found = ranked(rows, LM, {row["candidate"]: place / row["candidate"] for row in rows}, 0)
        behind = found["candidates"][1]["behind"]
        apart[how] = behind["high"] - behind["low"]
    assert apart["documents"] > 3.0 * apart["rows"]
    assert "do not tell it from" in found["because"]


def test_a_probe_is_a_small_share_of_the_steps_and_reads_no_more_rows_than_these(tmp_path):
    recipe = tiny.language_recipe(tmp_path)
    recipe["train"] = {**recipe["train"], "steps": 3000}
    recipe["data"] = {**recipe["data"], "extra": {"source": "more.jsonl"}}
    small = probe(parse_recipe(recipe), "other/model@sha256:" + "a" * 64)
    assert small.teacher.model == "other/model"
    assert small.teacher.sha256 == "a" * 64
    assert small.train.steps == 60 <= 0.05 * 3000
    assert small.data.train.limit == 60 * 4 == small.data.extra.limit, "each is labelled before it is learned"
    assert [term.kind for term in small.objective] == ["forward_kl", "hard"]
    assert small.evaluate.also == []


@pytest.mark.parametrize("candidates", [[], ["a", "a"]])
def test_no_candidates_or_one_twice_is_refused(tmp_path, candidates):
    with pytest.raises(RecipeError, match="each once"):
        rank_teachers(parse_recipe(tiny.language_recipe(tmp_path)), candidates, tmp_path / "run", Silent())


@pytest.mark.slow
def test_three_candidates_of_known_order_come_out_in_it(tmp_path, hurry):
    """One that learned long from such texts, one that learned less, one that never did, and one with no tokenizer there."""
    import torch
    from transformers import AutoModelForCausalLM

    from stillhouse import Distiller
    from stillhouse import objectives as kd
    from stillhouse.models.load import load_tokenizer

    recipe = tiny.language_recipe(tmp_path)
    texts = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    for name, steps in (("long", 120), ("short", 20), ("never", 0)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
        tokenizer = load_tokenizer(tmp_path / "teacher")
        if steps:
            Distiller(
                model=model, objective=[kd.hard()], args=tiny.arguments(tmp_path / "x", max_steps=steps, seed=1),
                train_dataset=texts, processing_class=tokenizer,
            ).train()  # fmt: skip
        with torch.no_grad():
            model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    recipe["student"] = {"model": str(tiny.save_language_model(tmp_path / "student", layers=2, seed=4))}
    load_tokenizer(tmp_path / "teacher").save_pretrained(tmp_path / "student")
    recipe["train"] = {**recipe["train"], "steps": 600, "learning_rate": 1e-2}
    write_recipe(tmp_path / "r.yaml", recipe)
    names = ",".join(str(tmp_path / name) for name in ("never", "missing", "short", "long"))
    said = stillhouse(
        "teachers",
        tmp_path / "r.yaml",
        "--candidates",
        names,
        "--folder",
        tmp_path / "run",
        "--format",
        "json",
    )
    assert said.code == 0, said.err
    found = json.loads(said.out)
    order = [row["candidate"].rpartition("/")[2] for row in found["candidates"]]
    assert order == ["long", "short", "never", "missing"]
    assert "missing" in found["candidates"][-1]["why"]
    assert found["steps"] <= 0.05 * found["of_steps"]
