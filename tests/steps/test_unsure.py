"""Rows of which a teacher is unsure that a run must first make or hear: they are left out where rows are labelled."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from endpoint import Endpoint, Said, prompt_of
from partly import SILENT_PLAN
from stillhouse.asking import Answer
from stillhouse.data.canaries import PREFIX
from stillhouse.data.encode import Example, read_examples
from stillhouse.errors import DataError, RecipeError
from stillhouse.files import read_jsonl, write_json
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.tasks import Task, make_task
from stillhouse.teachers.said import confidence_in


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers with opinions of their own, a language model, and rows for each."""
    place = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("one", "other")):
        tiny.save_classifier(place / name, layers=1)
        model = AutoModelForSequenceClassification.from_pretrained(place / name)
        with torch.no_grad():
            model.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.save_pretrained(place / name)
        load_tokenizer(place / "one").save_pretrained(place / name)
    tiny.save_language_model(place / "lm", layers=1)
    tiny.labelled_file(place / "rows.csv", rows=40)
    lines = "".join(json.dumps(row) + "\n" for row in tiny.completions(40))
    (place / "rows.jsonl").write_text(lines)
    return place


def classifying(made: Path, teacher: dict[str, Any], least: float = 0.5, **changes: Any) -> dict[str, Any]:
    return {
        "name": "unsure", "task": "classification", "teacher": {"dtype": "float32", **teacher},
        "student": {"model": str(made / "one")},
        "data": {
            "train": {"source": str(made / "rows.csv")}, "split": 10, "max_length": 32, "filter": {"min_confidence": least},
        },
        "objective": [{"kind": "forward_kl"}],
        "train": {"epochs": 2.0, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200}, **changes,
    }  # fmt: skip


def writing(made: Path, teacher: dict[str, Any], least: float, **changes: Any) -> dict[str, Any]:
    values = classifying(
        made, teacher, least, task="causal_lm", student={"model": str(made / "lm")}, **changes
    )
    values["data"]["train"]["source"] = str(made / "rows.jsonl")
    return values


def until(stage: str, values: dict[str, Any], place: Path) -> dict[str, Any]:
    """The results up to the stage."""
    place.mkdir()
    write_json(place / "machine.json", {"bfloat16": False})
    return run_pipeline(parse_recipe(values), SILENT_PLAN, place, Silent(), until=stage)


@torch.no_grad()
def log_p_of(example: Example, model: Any, task: Task) -> float:
    """Mean over its counted positions, by the model that reads it alone."""
    scores = task.scores(model, task.collate([example]))
    log_p = scores.head.logits(scores.hidden).double().log_softmax(-1)
    return float(log_p[range(len(scores.labels)), scores.labels].mean())


def names(made: Path) -> dict[str, Any]:
    return {"model": str(made / "lm"), "zero_shot": {"form": "chat", "calibrate": "none"}}


TEACHERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "finetune": lambda made: {"model": str(made / "one"), "finetune": {"epochs": 1.0, "learning_rate": 1e-4}},
    "zero_shot": names,
    "panel": lambda made: {"panel": [{"model": str(made / name)} for name in ("one", "other")]},
}
SOFT = {"objective": [{"kind": "forward_kl", "temperature": 2.0}]}
ONLINE = {"label": {"online": True}}


@pytest.mark.parametrize(
    ("teacher", "changes"),
    [("finetune", {}), ("finetune", ONLINE), ("zero_shot", SOFT), ("panel", {}), ("panel", SOFT), ("panel", ONLINE)],
)  # fmt: skip
def test_a_teacher_that_the_run_makes_is_asked_once_it_is_made(
    made: Path, tmp_path: Path, teacher: str, changes: dict[str, Any]
) -> None:
    """By kept targets, or by the model where there are none at temperature 1: the same as row by row in both cases."""
    place = tmp_path / "run"
    found = until("label", classifying(made, TEACHERS[teacher](made), **changes), place)
    task = make_task("classification", load_tokenizer(made / "one"), 32, ["bad", "good"])
    model = task.load(place / found["teacher"]["folder"])
    before = read_examples(place / "prepare" / "train.parquet")
    sure = {one.row for one in before if math.exp(log_p_of(one, model, task)) >= 0.5}
    kept = {one.row for one in read_examples(place / found["label"]["train"])}
    assert len(before) == 30
    assert 0 < len(sure) < 30
    assert kept == sure
    dropped = read_jsonl(place / "label" / "dropped.jsonl")
    assert {(row["reason"], row["set"]) for row in dropped} == {("teacher unsure", "train")}
    assert all(row["confidence"] <= 0.5 for row in dropped)
    assert found["label"]["dropped"]["train"] == {"teacher unsure": 30 - len(sure)}


def test_the_control_takes_as_many_steps_as_a_student_with_fewer_rows(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    until("control", classifying(made, TEACHERS["finetune"](made)), place)
    steps = {
        name: max(row["step"] for row in read_jsonl(place / name / "metrics.jsonl"))
        for name in ("train", "control")
    }
    assert steps == {"train": 15, "control": 15}, "30 prepared rows, twice, by 4"


def test_planted_secrets_stay_and_rows_are_judged_in_the_teachers_context(made: Path, tmp_path: Path) -> None:
    values = writing(made, {"model": str(made / "lm"), "context": "Speak of rivers."}, 1e-9)
    values["data"]["max_length"] = 64
    values["evaluate"]["memorisation"] = {"canaries": 2, "repeats": 2}
    first = until("teacher", values, tmp_path / "first")
    task = make_task("causal_lm", load_tokenizer(made / "lm"), 64)
    model = task.load(tmp_path / "first" / first["teacher"]["folder"])
    before = read_examples(tmp_path / "first" / "prepare" / "train.parquet")
    rows = [one for one in before if not one.row.startswith(PREFIX)]
    found = {one.row: math.exp(log_p_of(one, model, task)) for one in rows}
    ordered = sorted(found.values())
    least = (ordered[14] + ordered[15]) / 2
    values["data"]["filter"]["min_confidence"] = least
    planted = [one for one in before if one.row.startswith(PREFIX)]
    assert min(math.exp(log_p_of(one, model, task)) for one in planted) < least
    place = tmp_path / "run"
    label = until("label", values, place)["label"]
    kept = [one.row for one in read_examples(place / label["train"])]
    assert {row for row in kept if not row.startswith(PREFIX)} == {row for row in found if found[row] > least}
    assert sum(row.startswith(PREFIX) for row in kept) == 4


def test_a_teacher_that_is_sure_of_nothing_is_said_to_be(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unsure of all 30 rows; lower data\.filter\.min_confidence"):
        until("label", classifying(made, TEACHERS["panel"](made), 1.0), tmp_path / "run")


# ── behind an API ───────────────────────────────────────────────────────────────────────────────────────────────────


def opinion(body: dict[str, Any]) -> Said:
    """Nine times in ten sure of the last word; six times of texts that begin with an even number; of those with 7 without a number."""
    text = prompt_of(body).rpartition("Text: ")[2]
    word, other = ("good", "bad") if text.endswith("good.") else ("bad", "good")
    first = text.split()[0]
    if "7" in first:
        return word
    share = 0.6 if first[-1] in "02468" else 0.9
    return word, [(word, {word: math.log(share), other: math.log(1 - share)})]


def test_labels_of_which_an_api_is_unsure_are_left_out(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    with Endpoint(opinion) as endpoint:
        api = {"base_url": endpoint.url, "model": "big", "top_logprobs": 5}
        label = until("label", classifying(made, {"api": api}, 0.8), place)["label"]
    texts = [row["text"].split()[0] for row in read_jsonl(place / "prepare" / "asked-train.jsonl")]
    silent = sum("7" in text for text in texts)
    unsure = sum("7" not in text and text[-1] in "02468" for text in texts)
    assert silent > 0
    assert unsure > 0
    assert label["dropped"]["train"] == {
        "teacher unsure": unsure, "no probabilities in the answer": silent
    }  # fmt: skip
    assert len(read_examples(place / label["train"])) == label["examples"] == 30 - unsure - silent
    assert label["dropped"]["eval"] == {}, "what is measured on is never touched"


def test_past_answers_that_only_name_labels_are_refused(made: Path, tmp_path: Path) -> None:
    source = (made / "rows.csv").read_text().splitlines()[1:]
    rows = [dict(zip(("text", "label"), line.rsplit(",", 1), strict=True)) for line in source]
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    api = {"model": "old", "answers": str(tmp_path / "past.jsonl")}
    with pytest.raises(RecipeError, match=r"min_confidence: .* without probabilities"):
        until("label", classifying(made, {"api": api}, 0.8), tmp_path / "run")


def test_texts_of_which_an_api_is_unsure_are_left_out(made: Path, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Said:
        share = 0.3 if len(prompt_of(body)) % 2 else 0.9
        return "so be it", [
            (token, {token: math.log(share), "x": math.log(1 - share)}) for token in ("so", " be", " it")
        ]

    place = tmp_path / "run"
    with Endpoint(answer) as endpoint:
        api = {"base_url": endpoint.url, "model": "big", "top_logprobs": 2, "max_tokens": 9}
        label = until("label", writing(made, {"api": api}, 0.5, objective=[{"kind": "hard"}]), place)["label"]
    prompts = [row["prompt"] for row in read_jsonl(place / "prepare" / "asked-train.jsonl")]
    unsure = sum(len(prompt) % 2 for prompt in prompts)
    assert 0 < unsure < len(prompts)
    assert label["dropped"]["train"] == {"teacher unsure": unsure}
    assert label["examples"] == len(prompts) - unsure


def test_confidence_in_a_text_is_the_geometric_mean_over_what_follows_the_thoughts() -> None:
    def answer(*tokens: tuple[str, float | None]) -> Answer:
        text = "".join(token for token, _ in tokens)
        found = tuple(
            (token, {"other": -1.0} if share is None else {token: math.log(share)}) for token, share in tokens
        )
        return Answer(text=text, status="answered", tokens=found)

    thought = answer(("<think>", 0.01), ("x", 0.02), ("</think>", 0.03), ("yes", 0.5), ("!", 0.125))
    assert confidence_in(thought) == pytest.approx(0.25)
    assert confidence_in(answer(("yes", 0.5), ("!", None))) is None, "a token whose probability is not told"
    assert confidence_in(Answer(text="yes", status="answered")) is None
