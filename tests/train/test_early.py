"""Ending early: the student is the best one seen, whenever the run was stopped and began again."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import tiny
from stillhouse.data.encode import read_examples
from stillhouse.errors import DataError, RecipeError
from stillhouse.measure import CLASSIFICATION_METRICS, LM_METRICS, evaluate
from stillhouse.models.load import load_tokenizer
from stillhouse.pipeline import run_pipeline
from stillhouse.probe import look
from stillhouse.progress import Silent
from stillhouse.recipe import parse_recipe
from stillhouse.report.evidence import sections
from stillhouse.runner import run
from stillhouse.stages import STAGES
from stillhouse.steps.training import set_aside
from stillhouse.tasks import make_task
from stillhouse.train import early
from typed import hurried

ACCURACY, BITS = CLASSIFICATION_METRICS["accuracy"], LM_METRICS["bits_per_byte"]


def test_the_first_of_the_best_counts_and_a_tie_is_no_gain() -> None:
    looks = [(2, 0.5), (4, 0.7), (6, 0.7), (8, 0.6)]
    assert early.best_of(looks, ACCURACY) == (4, 0.7)
    assert early.best_of(looks, BITS) == (2, 0.5)
    assert not early.ended(looks[:2], ACCURACY, 2)
    assert not early.ended(looks[:3], ACCURACY, 2)
    assert early.ended(looks, ACCURACY, 2)
    assert not early.ended([], BITS, 1)


def recipe_of(folder: Path, **train: Any) -> Any:
    """A student that soon learns its few rows by heart, so that held-out rows get worse."""
    values = tiny.language_recipe(folder)
    values["train"] = {
        "steps": 60, "batch_size": 8, "learning_rate": 2e-2, "checkpoint_every": 5, "precision": "float32",
        "schedule": "constant_with_warmup", "early_stopping": {"every": 4, "patience": 2, "rows": 12}, **train,
    }  # fmt: skip
    values["data"] = {
        "train": {"source": str(folder / "text.jsonl"), "limit": 12},
        "split": 90,
        "max_length": 24,
    }
    values["evaluate"] = {"rows": 4, "resamples": 200, "speed": False}
    values["report"] = {"samples": 0}
    return parse_recipe(values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("early")
    with hurried():
        return folder, run(recipe_of(folder), folder / "run")


def test_training_ends_and_the_student_is_the_one_that_was_best(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, found = whole
    for name, stage in (("student", "train"), ("hard_only", "control")):
        kept = found["early_stopping"][name]
        assert kept["ended_at"] < kept["steps"] == 60, name
        assert kept["best_step"] == kept["ended_at"] - 8
        assert kept["best"] == min(value for _, value in kept["looks"])
        assert [step for step, _ in kept["looks"]] == list(range(4, kept["ended_at"] + 1, 4))
        lines = [
            json.loads(line) for line in (folder / "run" / stage / "metrics.jsonl").read_text().splitlines()
        ]
        assert [[row["step"], row["validation"]] for row in lines if "validation" in row] == kept["looks"]
    section = next(one for one in sections(found) if one.title == "Early stopping")
    assert [row[0] for row in section.rows] == ["student", "hard targets only"]


def test_what_it_is_chosen_on_is_neither_learned_nor_reported(whole: tuple[Path, dict[str, Any]]) -> None:
    """The kept value is that of the model that was handed over, on rows that are in no batch and not held out."""
    folder, found = whole
    task = make_task("causal_lm", load_tokenizer(folder / "teacher"), 24)
    train = read_examples(folder / "run/prepare/train.parquet")
    learned, chosen = set_aside(
        recipe_of(folder).train.early_stopping, train, {"validation": None}, folder / "run/train"
    )
    assert chosen is not None
    keys = {example.key for example in chosen.examples}
    assert len(keys) == 12
    assert not keys & {example.key for example in learned}
    assert not keys & {example.key for example in read_examples(folder / "run/prepare/eval.parquet")}
    rows = look([folder / "run/student"], task, chosen.examples, 4, Silent())
    assert evaluate(BITS, rows) == pytest.approx(found["early_stopping"]["student"]["best"], abs=1e-6)


def trained(recipe: Any, folder: Path) -> None:
    """As far as the student."""
    run_pipeline(recipe, STAGES, folder, Silent(), until="train")


class Killed(Exception):
    """Stands in for a kill: nothing after it runs."""


@pytest.mark.parametrize("moment", ["at a look", "when it has ended", "before the student is written"])
def test_a_run_that_is_stopped_and_goes_on_gives_the_same_student(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, moment: str
) -> None:
    folder, found = whole
    recipe, last = recipe_of(folder), found["early_stopping"]["student"]["ended_at"]
    step = {"at a look": last - 4, "when it has ended": last}.get(moment)
    original = early.Stopping.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        original(self, args, state, control, **more)
        if state.global_step == step:
            raise Killed

    patch = (
        mock.patch.object(early.Chosen, "write", side_effect=Killed)
        if step is None
        else mock.patch.object(early.Stopping, "on_step_end", stop)
    )
    for done in ("prepare", "plan", "teacher", "initial", "label"):
        shutil.copytree(folder / "run" / done, tmp_path / "run" / done)
    with hurried(), patch, pytest.raises(Killed):
        trained(recipe, tmp_path / "run")
    with hurried():
        trained(recipe, tmp_path / "run")
    for name in ("model/model.safetensors", "metrics.jsonl", "early_stopping.json"):
        mine, theirs = ((place / "run/train" / name) for place in (tmp_path, folder))
        if name == "metrics.jsonl":
            mine, theirs = (_curve(path) for path in (mine, theirs))
            assert mine == theirs
        else:
            assert mine.read_bytes() == theirs.read_bytes(), name


def _curve(path: Path) -> Any:
    """Its rows without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: row.get(key) for key in ("step", "loss", "validation")} for row in rows]


def test_a_run_that_never_gets_worse_ends_with_its_last_look(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, steps=5, learning_rate=1e-4, early_stopping={"every": 3, "patience": 5, "rows": 4}
    )
    with hurried():
        trained(recipe, tmp_path / "run")
    kept = json.loads((tmp_path / "run/train/early_stopping.json").read_text())
    assert [step for step, _ in kept["looks"]] == [3, 5], "the last step is always looked at"


def test_rows_of_data_validation_are_taken_where_there_are_some(tmp_path: Path) -> None:
    values = recipe_of(tmp_path, steps=2).model_dump(mode="json")
    values["data"] |= {"validation": 0.3}
    with hurried():
        trained(parse_recipe(values), tmp_path / "run")
    kept = json.loads((tmp_path / "run/train/early_stopping.json").read_text())
    assert kept["of"] == "data.validation"


def test_settings_that_cannot_be_are_refused_in_a_sentence(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(DataError, match=r"early_stopping: no training row has an answer"):
        set_aside(recipe.train.early_stopping, [], {"validation": None}, tmp_path)
    values = recipe.model_dump(mode="json")
    values["student"]["sparsity"] = {"amount": 0.5}
    with pytest.raises(
        RecipeError, match=r"train\.early_stopping: the best student may be one that is not sparse"
    ):
        parse_recipe(values)


def test_a_student_with_rounded_weights_goes_back_to_its_best_too(tmp_path: Path) -> None:
    """What is put back are the weights in the form that they are learned in; rounding comes after."""
    values = recipe_of(tmp_path, steps=8, early_stopping={"every": 2, "patience": 1, "rows": 6}).model_dump(
        mode="json"
    )
    values["student"]["quantize"] = {"weights": "int8"}
    with hurried():
        trained(parse_recipe(values), tmp_path / "run")
    kept = json.loads((tmp_path / "run/train/early_stopping.json").read_text())
    task = make_task("causal_lm", load_tokenizer(tmp_path / "teacher"), 24)
    train = read_examples(tmp_path / "run/prepare/train.parquet")
    _, chosen = set_aside(
        parse_recipe(values).train.early_stopping, train, {"validation": None}, tmp_path / "run/train"
    )
    assert chosen is not None
    rows = look([tmp_path / "run/train/model"], task, chosen.examples, 4, Silent())
    assert evaluate(BITS, rows) == pytest.approx(kept["best"], abs=1e-4)
