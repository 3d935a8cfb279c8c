"""Searches over rows without labels or answers: trials are judged by what the teacher said of the rows set aside."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint
from plans.kitchen import asked
from plans.test_paid_once import texts
from stillhouse.data.encode import read_examples, write_examples
from stillhouse.errors import DataError
from stillhouse.files import read_json, read_jsonl
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe.yaml import parse_yaml
from stillhouse.steps import intact
from stillhouse.steps.aside import keep_aside, rows_aside
from stillhouse.tasks import make_task
from test_blackbox import classifying, opinion
from typed import hurried, stillhouse, write_recipe

pytest.importorskip("optuna")
TUNE = {
    "trials": 2,
    "prune": False,
    "validation": 0.3,
    "space": {"train.learning_rate": {"low": 1e-4, "high": 1e-2}},
}


def tuned(recipe: Path, folder: Path) -> dict[str, Any]:
    with hurried():
        said = stillhouse("tune", recipe, "--folder", folder)
    assert said.code == 0, said.err
    found: dict[str, Any] = read_json(folder / "results.json")["tuning"]
    assert all(row["value"] is not None for row in found["trials"])
    return found


@pytest.mark.parametrize("answered", [False, True])
def test_trials_that_learn_an_apis_texts_are_judged_by_its_texts_or_by_the_datas_own(
    tmp_path: Path, answered: bool
) -> None:
    """And the runs to the end measure nothing on the rows set aside, though the teacher answered these as well."""
    with Endpoint(lambda body: "because rivers") as endpoint:
        recipe = texts(tmp_path, endpoint.url, {})
        values = parse_yaml(recipe.read_text(encoding="utf-8"), "r.yaml")
        if answered:
            rows = [{**row, "completion": "so it is"} for row in read_jsonl(tmp_path / "prompts.jsonl")]
            (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values |= {"tune": {**TUNE, "prune": True}, "sweep": {}, "train": {**values["train"], "steps": 4}}
        found = tuned(write_recipe(tmp_path / "t.yaml", values), tmp_path / "tuned")
    trial = tmp_path / "tuned" / "runs" / "trial-000"
    aside = rows_aside(trial)
    tokenizer = load_tokenizer(tmp_path / "base")
    learned = {tokenizer.decode([i for i in one.labels if i >= 0], skip_special_tokens=True) for one in aside}
    assert {text.strip() for text in learned} == {"so it is" if answered else "because rivers"}
    assert (
        found["rows"]
        == len(aside)
        == read_json(trial / "prepare/DONE.json")["result"]["sets"]["validation"]["asked"]
    )
    whole = read_json(tmp_path / "tuned" / "runs" / "default" / "results.json")
    assert not [kind for kind in whole["student"]["metrics"] if kind.startswith("validation")]


def bare(place: Path, rows: int = 40) -> dict[str, Any]:
    """`data:` with texts that nobody labelled, and held-out rows with labels."""
    some = [
        {"text": f"{text} {'good' if n % 2 else 'bad'}"}
        for n, text in enumerate(tiny.sentences(rows, seed=8))
    ]
    (place / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {
        "train": {"source": str(place / "more.jsonl")},
        "eval": {"source": str(place / "rows.csv")},
        "max_length": 32,
    }


def test_trials_on_texts_that_nobody_labelled_are_judged_by_the_labels_that_an_api_named(
    tmp_path: Path,
) -> None:
    with Endpoint(opinion) as endpoint:
        values = classifying(tmp_path, endpoint.url, labels={"bad": "Bad", "good": "Good"})
        values |= {"data": bare(tmp_path), "tune": TUNE, "train": {**values["train"], "steps": 4}}
        found = tuned(write_recipe(tmp_path / "t.yaml", values), tmp_path / "tuned")
    trial = tmp_path / "tuned" / "runs" / "trial-000"
    said = {row["id"]: row["text"] for row in read_jsonl(trial / "prepare" / "asked-validation.jsonl")}
    aside = rows_aside(trial)
    assert found["rows"] == len(aside) == len(said) == 12
    labels = read_json(trial / "prepare" / "DONE.json")["result"]["labels"]
    assert all(said[one.row].endswith(labels[one.labels[0]]) for one in aside)
    assert {one.labels[0] for one in read_examples(trial / "prepare" / "validation.parquet")} == {-100}


@pytest.mark.parametrize("online", [False, True])
def test_trials_on_texts_that_nobody_labelled_are_judged_by_the_names_that_a_zero_shot_teacher_prefers(
    tmp_path: Path, online: bool
) -> None:
    tiny.save_language_model(tmp_path / "lm", layers=1, pad_to=400)
    values = classifying(tmp_path, "http://localhost:1/v1")
    values |= {
        "teacher": {"model": str(tmp_path / "lm"), "dtype": "float32", "zero_shot": {"labels": {"bad": "terrible", "good": "lovely"}, "form": "plain"}},
        "data": bare(tmp_path), "tune": TUNE, "label": {"online": online}, "train": {**values["train"], "steps": 4},
    }  # fmt: skip
    with asked() as counts:
        found = tuned(write_recipe(tmp_path / "t.yaml", values), tmp_path / "tuned")
    assert sum(counts) == 12 + (0 if online else 28), "each row once for all trials and both whole runs"
    trial = tmp_path / "tuned" / "runs" / "trial-001"
    aside = rows_aside(trial)
    assert found["rows"] == len(aside) == 12
    facts = read_json(trial / "prepare" / "DONE.json")["result"]
    task = make_task("classification", load_tokenizer(tmp_path / "base"), 32, facts["labels"])
    teacher = task.load(trial / "teacher" / "zero_shot")
    wanted = teacher.log_probs([teacher.texts[one.key] for one in aside]).argmax(-1)
    assert [one.labels[0] for one in aside] == wanted.tolist()
    found = read_json(trial / "label" / "DONE.json")["result"]
    assert intact.targets_fault(trial / "label", found) is None
    (trial / "label" / "validation.parquet").unlink()
    assert "validation.parquet is gone" in (intact.targets_fault(trial / "label", found) or "")


def test_a_row_set_aside_keeps_its_own_label_and_one_that_nobody_labels_is_left_out(tmp_path: Path) -> None:
    for folder in ("prepare", "label"):
        (tmp_path / folder).mkdir()
    task = make_task("classification", tiny.encoder_tokenizer(), 32, ["bad", "good"])
    rows = [
        {"text": f"text {n}", "id": str(n), "where": str(n), "label": "bad" if n == 0 else None}
        for n in range(3)
    ]
    examples, _ = task.encode(rows)
    write_examples(tmp_path / "prepare" / "validation.parquet", examples)
    chosen = {examples[0].key: 1, examples[1].key: 1}
    assert keep_aside(tmp_path / "label", chosen, Silent())["validation"]["rows"] == 2
    kept = read_examples(tmp_path / "label" / "validation.parquet")
    assert [(one.row, one.labels) for one in kept] == [("0", [0]), ("1", [1])]
    write_examples(tmp_path / "prepare" / "validation.parquet", examples[2:])
    with pytest.raises(DataError, match="the teacher chose none"):
        keep_aside(tmp_path / "label", chosen, Silent())
