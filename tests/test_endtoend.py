"""Whole runs, every promise of results.json, and a student that needs none of our code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from safetensors.numpy import load_file

import tiny
from conftest import Finished
from stillhouse import run
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.runner import run_stages
from stillhouse.steps import paces
from typed import hurried, stillhouse

STAGES = ("prepare", "plan", "teacher", "initial", "label", "train", "control", "seeds", "evaluate", "report")
ALONE = """
import sys, torch, transformers
sys.modules["stillhouse"] = None
folder, auto_class, text = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
logits = model(**tokenizer(text, return_tensors="pt")).logits
assert torch.isfinite(logits).all()
print(type(model).__name__, sum(p.numel() for p in model.parameters()), model.config.id2label)
"""


def interval(value: Any, *more: str) -> None:
    """{value, low, high} in their order, or a value that is not known."""
    assert {"value", "low", "high", *more} <= set(value)
    if None not in (value["value"], value["low"], value["high"]):
        assert value["low"] <= value["high"]


def promised(
    found: dict[str, Any], controls: tuple[str, ...] = ("initial", "hard_only"), timed: bool = True
) -> None:
    """Every field that a reader of results.json may count on; `timed`: speed and memory were measured."""
    assert found["task"] in ("causal_lm", "classification")
    assert found["metric"] in found["metrics"]
    assert set(found["controls"]) == set(controls)
    for model in (found["teacher"], found["student"], *found["controls"].values()):
        assert set(model["metrics"]) == set(found["datasets"])
        for metrics in model["metrics"].values():
            assert found["metric"] in metrics
            for value in metrics.values():
                interval(value)
        assert model["parameters"] > 0
        assert model["bytes"] > 0
        if not timed:
            assert model["peak_memory_bytes"] is None
            continue
        assert model["peak_memory_bytes"] > 0
        speeds = [
            value for name, value in model["throughput"].items() if name not in ("unit", "batch", "intervals")
        ]
        for of in ("throughput", "latency"):
            assert model[of]["intervals"]
            for name, limits in model[of]["intervals"].items():
                assert limits["value"] == model[of][name]
        assert model["throughput"]["unit"]
        assert speeds
        assert min(speeds) > 0
    interval(found["retention"])
    if "hard_only" in controls:
        interval(found["gain_over_hard_only"], "p")
        assert 0 <= found["gain_over_hard_only"]["p"] <= 1
    else:
        assert found["gain_over_hard_only"] is None
    for name in STAGES:
        assert found["stages"][name]["seconds"] >= 0
        assert "predicted_seconds" in found["stages"][name]
    for name in STAGES[2:]:
        assert found["stages"][name]["predicted_seconds"] is not None
    json.dumps(found, allow_nan=False)


def finish(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The whole run, through the Python interface."""
    with hurried():
        return run(parse_recipe(values), folder)


def small(inputs: Path, **changes: Any) -> dict[str, Any]:
    """The tiny language recipe without what only takes time here."""
    values = tiny.language_recipe(inputs, **changes)
    train = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"}
    return {
        **values,
        "evaluate": {"rows": 8, "resamples": 200, "speed": False},
        "report": {"samples": 1},
        "train": train,
        **changes,
    }


def alone(folder: Path, auto_class: str) -> str:
    """What a process that cannot import stillhouse says of the student."""
    words = [sys.executable, "-c", ALONE, str(folder), auto_class, "the old house"]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return made.stdout


# ── the two tasks ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_language_model_is_distilled_and_every_promise_kept(finished: Finished) -> None:
    found = json.loads((finished.folder / "results.json").read_text())
    promised(found | {"stages": json.loads(finished.said.out)["stages"]})
    assert set(found["datasets"]) == {"eval", "other"}
    assert (finished.folder / "report.html").stat().st_size > 10_000
    assert (finished.folder / "student" / "README.md").exists()
    assert found["student"]["parameters"] < found["teacher"]["parameters"]


def test_the_student_is_an_ordinary_model_of_transformers(finished: Finished) -> None:
    found = json.loads((finished.folder / "results.json").read_text())
    said = alone(finished.folder / "student", "AutoModelForCausalLM")
    assert said.startswith("LlamaForCausalLM")
    assert str(found["student"]["parameters"]) in said
    assert not list((finished.folder / "student").glob("*.bin"))


def test_the_recipe_in_the_model_card_is_a_recipe(finished: Finished, tmp_path: Path) -> None:
    from stillhouse.recipe import load_recipe

    card = (finished.folder / "student" / "README.md").read_text()
    text = card.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "again.yaml").write_text(text)
    assert load_recipe(tmp_path / "again.yaml") == load_recipe(finished.recipe)


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A teacher fine-tuned on labels, a student from a config, unlabelled text, a second data set: the real measuring."""
    place = tmp_path_factory.mktemp("classification")
    tiny.save_classifier(place / "teacher")
    tiny.labelled_file(place / "rows.csv")
    tiny.labelled_file(place / "other.csv", rows=24, seed=11)
    (place / "more.jsonl").write_text(
        "".join(json.dumps({"text": f"{t} good"}) + "\n" for t in tiny.sentences(60, seed=5))
    )
    values = {
        "name": "labels",
        "task": "classification",
        "teacher": {"model": str(place / "teacher"), "dtype": "float32", "finetune": {"epochs": 6.0, "learning_rate": 2e-3, "batch_size": 16}},
        "student": {"from_config": {"config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}}},
        "data": {"train": {"source": str(place / "rows.csv")}, "split": 40, "unlabelled": {"source": str(place / "more.jsonl")}, "max_length": 32},
        "label": {"top_k": 2, "batch_size": 16},
        "objective": [{"kind": "forward_kl", "weight": 0.9, "temperature": 2.0}, {"kind": "hard", "weight": 0.1}],
        "train": {"steps": 80, "batch_size": 16, "learning_rate": 5e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "also": [{"name": "other", "source": str(place / "other.csv")}]},
        "report": {"samples": 3, "calibration": True},
    }  # fmt: skip
    with mock.patch.object(paces, "SECONDS", 0.1):
        found = run(parse_recipe(values), place / "run")
    return place / "run", found


def test_a_classifier_is_distilled_and_every_promise_kept(classified: tuple[Path, dict[str, Any]]) -> None:
    folder, found = classified
    promised(found)
    assert found == json.loads((folder / "results.json").read_text()) | {"stages": found["stages"]}
    assert found["teacher"]["metrics"]["eval"]["accuracy"]["value"] > 0.9, (
        "the fine-tuned teacher knows the labels"
    )
    assert found["student"]["metrics"]["eval"]["accuracy"]["value"] > 0.8
    assert found["data"]["rows"]["train"] > 120 - 1, "unlabelled rows are among the training examples"
    assert len(found["samples"]) == 3
    assert found["reliability"]


def test_the_classifier_is_an_ordinary_model_with_named_labels(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    said = alone(classified[0] / "student", "AutoModelForSequenceClassification")
    assert said.startswith("BertForSequenceClassification")
    assert "'bad'" in said
    assert "'good'" in said


def test_the_temperature_that_mends_the_student_lies_beside_it_on_request(
    classified: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = classified
    kept = json.loads((folder / "student" / "calibration.json").read_text())
    mend = found["calibration"]["student"]
    assert kept == {**mend, "measured_on": found["datasets"]["eval"]}
    assert 0.0 < kept["temperature"] < 20.0


def test_the_order_of_labels_is_that_of_the_teacher_and_not_of_the_alphabet(tmp_path: Path) -> None:
    """Swapped outputs give a student that says the opposite, with all numbers in order."""
    teacher = tiny.save_classifier(tmp_path / "teacher", labels=("good", "bad"))
    tiny.labelled_file(tmp_path / "rows.csv")
    values = {
        "name": "swapped", "task": "classification", "teacher": {"model": str(teacher), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 1, "by": "every_nth"}},
        "data": {"train": {"source": str(tmp_path / "rows.csv")}, "split": 20, "max_length": 32},
        "train": {"steps": 2, "precision": "float32"}, "evaluate": {"resamples": 200, "hard_only": False, "speed": False}, "report": {"samples": 0},
    }  # fmt: skip
    finish(values, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert config["id2label"] == {"0": "good", "1": "bad"}


@pytest.mark.parametrize("asked", ["layers", "parameters"])
def test_a_student_is_cut_from_a_teacher_whose_head_is_yet_to_be_trained(tmp_path: Path, asked: str) -> None:
    """The plan looks at the student's shape before the teacher is fine-tuned."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    whole = tiny.save_classifier(tmp_path / "whole")
    model = AutoModelForSequenceClassification.from_pretrained(whole)
    model.base_model.save_pretrained(tmp_path / "teacher")
    AutoTokenizer.from_pretrained(whole).save_pretrained(tmp_path / "teacher")
    tiny.labelled_file(tmp_path / "rows.csv")
    smaller = {"target": {"parameters": int(0.9 * model.num_parameters())}}
    student = {"from_teacher": {"layers": 1}} if asked == "layers" else smaller
    values = {
        "name": "cut", "task": "classification",
        "teacher": {"model": str(tmp_path / "teacher"), "dtype": "float32", "finetune": {"epochs": 1.0}},
        "student": student, "data": {"train": {"source": str(tmp_path / "rows.csv")}, "split": 20, "max_length": 32},
        "train": {"steps": 2, "precision": "float32"}, "evaluate": {"resamples": 200, "hard_only": False, "speed": False}, "report": {"samples": 0},
    }  # fmt: skip
    found = finish(values, tmp_path / "run")
    assert found["student"]["parameters"] < found["teacher"]["parameters"]


# ── other data, other settings ──────────────────────────────────────────────────────────────────────────────────────


def _rows(kind: str, number: int, text: str) -> dict[str, Any]:
    if kind == "messages":
        return {
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": f"say {number}"},
                {"role": "assistant", "content": text},
            ]
        }
    if kind == "alpaca":
        return {"instruction": f"say {number}", "input": "", "output": text}
    return {"prompt": f"{number}: ", "completion": text}


@pytest.mark.parametrize("kind", ["messages", "prompt_completion", "alpaca"])
def test_conversations_and_completions_run_too(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(_rows(kind, n, t)) + "\n" for n, t in enumerate(tiny.sentences(40))))
    values = small(tmp_path, data={"train": {"source": str(path)}, "split": 8, "max_length": 96})
    found = finish(values, tmp_path / "run")
    promised(found, timed=False)
    assert found["data"]["format"] == kind


def test_a_teacher_beside_the_student_teaches_what_its_kept_targets_teach(tmp_path: Path) -> None:
    """With the whole vocabulary kept, the cache differs from the teacher by the rounding of float16 alone."""
    students = {}
    for name, label in (("kept", {"top_k": 448}), ("online", {"online": True}), ("few", {"top_k": 1})):
        values = small(
            tmp_path,
            label=label,
            objective=[{"kind": "forward_kl", "temperature": 2.0}],
            evaluate={"rows": 4, "resamples": 200, "hard_only": False, "speed": False},
        )
        finish(values, tmp_path / name)
        students[name] = load_file(tmp_path / name / "student" / "model.safetensors")
    start = load_file(tmp_path / "kept" / "initial" / "model" / "model.safetensors")

    students["start"] = start

    def apart(
        one: str, other: str
    ) -> float:  # a norm: Adam turns the sign of a gradient near 0 into a whole step
        return sum(float(((students[one][key] - students[other][key]) ** 2).sum()) for key in start) ** 0.5

    moved = apart("online", "start")
    assert apart("online", "kept") < 0.05 * moved
    assert apart("online", "few") > 0.2 * moved, "the comparison can tell students apart"
    assert not list((tmp_path / "online" / "label").glob("targets-*"))


def test_without_a_teacher_term_there_is_nothing_to_label_and_no_control(tmp_path: Path) -> None:
    found = finish(small(tmp_path, objective=[{"kind": "hard"}]), tmp_path / "run")
    promised(found, controls=("initial",), timed=False)
    assert not list((tmp_path / "run" / "label").glob("targets-*"))


def test_the_control_can_be_left_out(tmp_path: Path) -> None:
    found = finish(
        small(tmp_path, evaluate={"rows": 8, "resamples": 200, "hard_only": False, "speed": False}),
        tmp_path / "run",
    )
    promised(found, controls=("initial",), timed=False)


def test_a_student_of_its_own_is_taught(tmp_path: Path) -> None:
    own = tiny.save_language_model(tmp_path / "student", layers=1, width=16, seed=7)
    found = finish({**small(tmp_path), "student": {"model": str(own)}}, tmp_path / "run")
    promised(found, timed=False)
    given, initial, taught = (
        load_file(folder / "model.safetensors")
        for folder in (own, tmp_path / "run" / "initial" / "model", tmp_path / "run" / "student")
    )
    assert {name: weight.tolist() for name, weight in initial.items()} == {
        name: weight.tolist() for name, weight in given.items()
    }
    assert all((taught[name] != weight).any() for name, weight in given.items()), (
        "every part of it has learned"
    )


# ── a run folder belongs to nobody's disk ───────────────────────────────────────────────────────────────────────────


def test_a_moved_run_goes_on_where_it_was(finished: Finished, tmp_path: Path, hurry: None) -> None:
    moved = Path(shutil.copytree(finished.folder, tmp_path / "elsewhere"))
    for name in ("report", "evaluate", "control"):
        shutil.rmtree(moved / name)
    (moved / "report.html").unlink()
    trained = (moved / "train" / "DONE.json").stat().st_mtime_ns
    said = stillhouse("run", finished.recipe, "--folder", moved)
    assert said.code == 0, said.err
    assert (moved / "train" / "DONE.json").stat().st_mtime_ns == trained, "what was done is not done again"
    assert (moved / "report.html").exists()
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (finished.folder, moved))
    for name in ("retention", "gain_over_hard_only", "floor", "samples"):
        assert one[name] == other[name], name
    assert str(finished.folder) not in (moved / "results.json").read_text()


def test_the_same_recipe_gives_the_same_student_in_another_folder(
    finished: Finished, tmp_path: Path, hurry: None
) -> None:
    assert stillhouse("run", finished.recipe, "--folder", tmp_path / "run", "--until", "train").code == 0
    name = "train/model/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes()


def test_a_runs_own_student_and_a_past_checkpoint_of_it_are_teachers_of_another_run(
    finished: Finished, tmp_path: Path, hurry: None
) -> None:
    """Born again (Furlanello et al. 2018, arXiv:1805.04770), and self-distillation from an earlier step."""
    past = min((finished.folder / "train" / "checkpoints").glob("checkpoint-*"))
    students = []
    for number, teacher in enumerate((finished.folder / "student", past)):
        values = small(tmp_path, teacher={"model": str(teacher), "dtype": "float32"})
        values["student"] = {"model": str(finished.folder / "initial" / "model")}
        values["train"] = {**values["train"], "log_every": 1}
        folder = tmp_path / str(number)
        run_stages(parse_recipe(values), folder, Silent(), until="train")
        logged = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
        assert logged[0]["forward_kl"] > 0
        students.append(load_file(folder / "train" / "model" / "model.safetensors"))
    assert any((one != students[1][name]).any() for name, one in students[0].items())


# ── objectives of every kind ────────────────────────────────────────────────────────────────────────────────────────

OBJECTIVES = {
    "layers": {
        "objective": [
            {"kind": "hidden", "layers": "last"}, {"kind": "relations", "weight": 0.1}, {"kind": "js", "beta": 0.3},
        ],
        "label": {"online": True},
    },
    "draws": {"objective": [{"kind": "forward_kl"}, {"kind": "hard", "weight": 0.1}], "label": {"samples": 8}},
    "on-policy": {
        "objective": [{"kind": "reverse_kl"}, {"kind": "policy_gradient", "weight": 0.1}],
        "label": {"online": True},
        "rollouts": {"share": 0.5, "max_new_tokens": 4},
    },
    "its own average": {
        "objective": [{"kind": "forward_kl"}, {"kind": "hard"}],
        "label": {"online": True},
        "teacher_ema": 0.9,
    },
    "schedules": {
        "objective": [
            {"kind": "skew_reverse_kl", "weight": {"start": 1.0, "end": 0.0, "over": 0.5}},
            {"kind": "hard", "weight": {"start": 0.0, "end": 1.0, "curve": "cosine"}},
        ],
        "label": {"top_k": 16},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_of_every_kind_run_from_a_recipe_to_a_report(name: str, tmp_path: Path) -> None:
    values = {**small(tmp_path), **OBJECTIVES[name]}
    if decay := values.pop("teacher_ema", None):
        values["teacher"] = {**values["teacher"], "ema": decay}
    values["train"] = {**values["train"], "log_every": 1}
    promised(finish(values, tmp_path / "run"), timed=False)
    logged = [
        json.loads(line) for line in (tmp_path / "run" / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    for term in OBJECTIVES[name]["objective"]:
        assert any(row[term["kind"]] != 0 for row in logged), term["kind"]
    if name == "layers":
        assert not list((tmp_path / "run" / "student").rglob("projectors*"))


def test_a_loss_of_ones_own_that_changes_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "def loss(student, teacher, *, temperature):\n    return {} * (student - teacher).square().sum(-1)\n"
    )
    own = tmp_path / "own_loss_of_a_test.py"
    own.write_text(text.format(1.0))
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {
        **small(tmp_path),
        "objective": [{"kind": "custom", "target": "own_loss_of_a_test:loss"}],
        "label": {"online": True},
        "evaluate": {"hard_only": False, "speed": False},
    }
    finish(values, tmp_path / "run")
    before = (tmp_path / "run" / "train" / "DONE.json").stat().st_mtime_ns
    finish(values, tmp_path / "run")
    assert (tmp_path / "run" / "train" / "DONE.json").stat().st_mtime_ns == before
    own.write_text(text.format(2.0))
    finish(values, tmp_path / "run")
    assert (tmp_path / "run" / "train" / "DONE.json").stat().st_mtime_ns != before
