"""Whole runs whose teacher is behind an API: no weights of it are here, and the report says what that costs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import tiny
from endpoint import Endpoint, Said, Weather, prompt_of
from stillhouse import run
from stillhouse.files import read_jsonl, write_json
from stillhouse.recipe import parse_recipe
from typed import hurried

STORM = Weather(seed=3, throttled=0.1, broken=0.05, garbage=0.03, dropped=0.02, empty=0.01, retry_after=0.05)


def opinion(body: dict[str, Any]) -> Said:
    """Says which of two words the text ends with; nine times in ten sure of it."""
    text = prompt_of(body).rpartition("Text: ")[2]
    good = text.rfind("good") > text.rfind("bad")
    word, other = ("Good", "Bad") if good else ("Bad", "Good")
    return word, [(word, {word: math.log(0.9), other: math.log(0.08), "The": math.log(0.01)})]


def classifying(place: Path, url: str, **api: Any) -> dict[str, Any]:
    """Plain values of a recipe with half of its rows labelled."""
    tiny.save_classifier(place / "base")
    tiny.labelled_file(place / "rows.csv", rows=90)
    return {
        "name": "box", "task": "classification",
        "teacher": {"api": {"base_url": url, "model": "big", **api}},
        "student": {"tokenizer": str(place / "base"), "from_config": {"config": {"num_hidden_layers": 1}}},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 30, "max_length": 32},
        "objective": [{"kind": "forward_kl", "temperature": 2.0}],
        "train": {"steps": 60, "batch_size": 16, "learning_rate": 5e-3, "precision": "float32"},
        "evaluate": {"resamples": 200}, "report": {"samples": 2},
    }  # fmt: skip


def finish(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    write_json(folder / "machine.json", {"bfloat16": False})  # measuring it takes long where it does not pay
    with hurried():
        return run(parse_recipe(values), folder)


def test_a_classifier_learns_from_named_labels(tmp_path: Path) -> None:
    with Endpoint(opinion, STORM) as endpoint:
        found = finish(classifying(tmp_path, endpoint.url, timeout=5.0), tmp_path / "run")
    assert set(endpoint.seen.delivered.values()) == {1}, "every row is asked about once, held-out ones too"
    assert len(endpoint.seen.delivered) == 90
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] == 1.0
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] > 0.8
    assert found["retention"]["value"] is not None
    assert found["controls"]["hard_only"]["metrics"]["eval"]["accuracy"]["value"] > 0.5
    for model in (found["teacher"], found["student"], *found["controls"].values()):
        assert "teacher_kl" not in model["metrics"]["eval"], "a name is no distribution"
    assert "ece" not in found["teacher"]["metrics"]["eval"]
    assert "parameters" not in found["teacher"]
    assert "behind an API" in (tmp_path / "run" / "report.html").read_text()


def test_probabilities_reach_the_student_and_the_report(tmp_path: Path) -> None:
    with Endpoint(opinion) as endpoint:
        found = finish(classifying(tmp_path, endpoint.url, top_logprobs=5), tmp_path / "run")
    assert found["teacher"]["metrics"]["eval"]["ece"]["value"] == pytest.approx(1 - 0.9 / 0.98, abs=1e-3)
    assert found["student"]["metrics"]["eval"]["teacher_kl"]["value"] > 0


def test_rows_that_nobody_labelled_are_enough(tmp_path: Path) -> None:
    with Endpoint(opinion) as endpoint:
        values = classifying(tmp_path, endpoint.url, labels={"bad": "Bad", "good": "Good"})
        rows = [
            {"text": f"{text} {'good' if n % 2 else 'bad'}"}
            for n, text in enumerate(tiny.sentences(60, seed=8))
        ]
        (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values["data"] = {
            "train": {"source": str(tmp_path / "more.jsonl")},
            "eval": {"source": str(tmp_path / "rows.csv")},
        }
        # ids of rows hold the file's path, so each run here has another order: enough steps for all of them
        values["train"] |= {"steps": 90}
        found = finish(values, tmp_path / "run")
    assert found["gains"] is None, "there is nothing to train a control on"
    assert set(found["controls"]) == {"initial"}
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] > 0.6


def test_a_language_model_learns_the_teachers_texts(tmp_path: Path) -> None:
    tiny.save_language_model(tmp_path / "base", layers=2)
    rows = [{"prompt": f"{text} Why?"} for text in tiny.sentences(60)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "name": "texts", "task": "causal_lm", "student": {"model": str(tmp_path / "base")},
        "data": {"train": {"source": str(tmp_path / "prompts.jsonl")}, "split": 12, "max_length": 64},
        "objective": [{"kind": "hard"}], "train": {"steps": 20, "batch_size": 4, "learning_rate": 3e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "baselines": [{"name": "itself", "model": str(tmp_path / "base")}]},
        "report": {"samples": 1, "prices": {"machine_per_hour": 1.0, "teacher_per_million": 5.0}},
    }  # fmt: skip
    with Endpoint(
        lambda body: "because the river gives books" + ("<|im_end|>" if prompt_of(body)[0] == "7" else "")
    ) as endpoint:
        values["teacher"] = {"api": {"base_url": endpoint.url, "model": "big", "max_tokens": 20}}
        found = finish(values, tmp_path / "run")
    dropped = read_jsonl(tmp_path / "run" / "label" / "dropped.jsonl")
    assert {row["reason"] for row in dropped} == {"control token in the answer"}
    after = found["student"]["metrics"]["eval"]["bits_per_byte"]["value"]
    assert after < found["controls"]["initial"]["metrics"]["eval"]["bits_per_byte"]["value"] - 0.5
    other = found["baselines"]["itself"]["metrics"]["eval"]
    assert "bits_per_byte" in other and "teacher_agreement" not in other, (
        "nobody knows what the teacher would have said next"
    )
    assert found["retention"]["value"] is None
    assert "behind an API" in found["retention"]["note"]
    assert found["samples"][0]["teacher"].startswith("because the river")
