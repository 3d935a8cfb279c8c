"""`stillhouse check`: a gate that lets nothing through that it should stop, and says which bound was missed."""

import json
from pathlib import Path

import pytest

import planted
from stillhouse.tasks import TASKS
from typed import stillhouse


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.run(tmp_path_factory.mktemp("runs") / "good", student=0.9)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.run(tmp_path_factory.mktemp("runs") / "bad", seed=1, student=0.7, sure=0.99)


def test_a_run_within_its_bounds_passes(good: Path) -> None:
    said = stillhouse("check", good, "--min-retention", 0.8, "--max-ece", 0.1, "--min", "macro_f1=0.5")
    assert (said.code, said.err) == (0, "")
    assert said.out.count("ok ") == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--min-retention", 0.97), "retention on eval is 0."),
        (("--max-ece", 0.05), "ece on eval is 0."),
        (("--max", "nll=0.1"), "nll on eval is "),
        (("--min", "accuracy=0.9"), "accuracy on eval is 0."),
        (("--no-group-gap-growth", 0.02), "no group was measured"),
        (("--min-gain", 0), "there is no control"),
    ],
)
def test_a_run_that_misses_a_bound_ends_with_6_and_names_it(
    bad: Path, words: tuple[object, ...], named: str
) -> None:
    said = stillhouse("check", bad, *words)
    assert said.code == 6
    assert named in said.err
    assert "Traceback" not in said.err


def test_every_missed_bound_is_named_and_none_that_holds(bad: Path) -> None:
    said = stillhouse(
        "check", bad, "--min-retention", 0.97, "--max-ece", 0.05, "--min", "accuracy=0.1", "--format", "json"
    )
    assert said.code == 6
    rows = json.loads(said.out)["rows"]
    assert [row["ok"] for row in rows] == [False, True, False]
    assert "accuracy" not in json.loads(said.err)["error"]


def test_a_retention_that_cannot_be_told_does_not_pass(tmp_path: Path) -> None:
    unknown = {"value": 1.4, "low": None, "high": None, "note": "retention is undefined: no lead."}
    place = planted.run(tmp_path / "run", retentions={"eval": unknown})
    said = stillhouse("check", place, "--min-retention", 0.1)
    assert said.code == 6
    assert "undefined" in said.err


def test_a_sure_gate_looks_at_the_worse_end_of_the_interval(good: Path) -> None:
    found = json.loads((good / "results.json").read_text())["student"]["metrics"]["eval"]["accuracy"]
    between = (found["low"] + found["value"]) / 2
    assert stillhouse("check", good, "--min", f"accuracy={between}").code == 0
    assert stillhouse("check", good, "--min", f"accuracy={between}", "--sure").code == 6


@pytest.mark.parametrize(("growth", "code"), [(0.01, 0), (0.05, 6)])
def test_a_gap_that_grew_is_refused(tmp_path: Path, growth: float, code: int) -> None:
    gap = {
        "column": "dialect",
        "group": "north",
        "title": "accuracy",
        "growth": {"value": growth, "low": 0.0, "high": 0.1},
    }
    place = planted.run(tmp_path / "run", groups={"eval": {"gaps": [gap]}})
    said = stillhouse("check", place, "--no-group-gap-growth", 0.02)
    assert said.code == code
    assert ("dialect = north" in said.err) == (code == 6)


def test_without_bounds_the_gate_of_the_recipe_is_asked(tmp_path: Path) -> None:
    place = planted.run(tmp_path / "run", student=0.8)
    assert stillhouse("check", place).code == 2
    (place / "recipe.json").write_text('{"name": "run", "gate": {"min_retention": 0.99, "min_gain": null}}')
    assert stillhouse("check", place).code == 6


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--min", "acuracy=0.5"), "Did you mean 'accuracy'?"),
        (("--min", "accuracy"), "METRIC=VALUE"),
        (("--on", "evil", "--max-ece", "1"), "Did you mean 'eval'?"),
    ],
)
def test_a_bound_on_what_is_not_there_is_a_mistake_and_no_pass(
    good: Path, words: tuple[str, ...], hint: str
) -> None:
    said = stillhouse("check", good, *words)
    assert said.code == 2
    assert hint in said.err


def test_a_folder_that_is_no_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    for command in ("check", "compare"):
        said = (
            stillhouse(command, tmp_path, tmp_path) if command == "compare" else stillhouse(command, tmp_path)
        )
        assert said.code == 2
        assert "is no run folder" in said.err


def test_a_student_that_is_surely_worse_than_another_run_is_refused(good: Path, bad: Path) -> None:
    assert stillhouse("check", bad, "--not-worse-than", good).code == 6
    assert stillhouse("check", good, "--not-worse-than", bad).code == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_any_task_is_held_against_another(task: str, tmp_path: Path) -> None:
    good, bad = planted.two_runs(tmp_path, task)
    assert stillhouse("check", good, "--not-worse-than", bad).code == 0
    said = stillhouse("check", bad, "--not-worse-than", good)
    assert said.code == 6
    assert "surely worse" in said.err


def test_a_task_of_the_harness_is_bounded_by_its_name(tmp_path: Path) -> None:
    level = {"value": 0.6, "low": 0.4, "high": 0.8, "note": None}
    tasks = [
        {"task": "arc", "metric": "acc", "models": {"student": level, "teacher": {**level, "value": 0.9}}}
    ]
    place = planted.run(tmp_path / "run", harness=tasks)
    passed = stillhouse("check", place, "--min", "arc:acc=0.5")
    assert passed.code == 0
    assert "arc:acc is 0.6000" in passed.out
    assert stillhouse("check", place, "--min", "arc:acc=0.5", "--sure").code == 6
    assert stillhouse("check", place, "--max", "arc:acc=0.5").code == 6
    unknown = stillhouse("check", place, "--min", "arc:ac=0.5")
    assert unknown.code == 2
    assert "Did you mean 'arc:acc'?" in unknown.err
