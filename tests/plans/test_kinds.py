"""Each kind of plan from beginning to end: its table, its control, and that nothing is trained twice."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from plans.kitchen import classifier, trained
from stillhouse.files import hash_path, read_json
from tiny import labelled_file, masked_recipe
from typed import hurried, stillhouse, write_recipe

Values = dict[str, Any]


def finished(inputs: Path, values: Values, killed_at: int | None = None) -> tuple[Path, list[str], Values]:
    """The plan's folder, the runs in the order in which they were trained, and results.json.

    It is stopped while the `killed_at`-th student is trained, and run again; then once more, when nothing is left to do.
    """
    recipe, folder = write_recipe(inputs / "r.yaml", values), inputs / "plan"
    names: list[str] = []
    with hurried():
        if killed_at is not None:
            with trained(killed_at) as before:
                assert stillhouse("run", recipe, "--folder", folder).code == 130
            names += before
            assert not (folder / "results.json").exists()
        with trained() as after:
            said = stillhouse("run", recipe, "--folder", folder)
        assert said.code == 0, said.err
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")}
        with trained() as again:
            assert stillhouse("run", recipe, "--folder", folder).code == 0
    assert again == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")} == times
    return folder, names + after, read_json(folder / "results.json")


def rows_of(found: Values) -> dict[str, Values]:
    return {row["name"]: row for row in found["runs"]}


def made(folder: Path, run: str, stage: str) -> Values:
    """What a stage of a run returned."""
    result: Values = read_json(folder / "runs" / run / stage / "DONE.json")["result"]
    return result


def check_table(folder: Path, found: Values) -> None:
    """Each line has its own run's numbers, and each comparison is the difference of two lines."""
    table = rows_of(found)
    for name, row in table.items():
        own = read_json(folder / "runs" / name / "results.json")["student"]["metrics"]["eval"]
        assert row["quality"]["value"] == own[row["metric"]]["value"]
    for gap in found["comparisons"]:
        one, other = (table[gap[side]]["quality"]["value"] for side in ("of", "against"))
        assert gap["value"] == pytest.approx(one - other)
    assert "<table" in (folder / "report.html").read_text()


def test_assistants_teach_down_the_chain_and_a_kill_costs_no_training(tmp_path: Path) -> None:
    plan = {"kind": "assistants", "sizes": [{"from_teacher": {"layers": 2}}]}
    folder, names, found = finished(tmp_path, classifier(tmp_path, plan=plan), killed_at=2)
    assert names == ["assistant-1", "student", "direct"]
    table = rows_of(found)
    assert list(table) == names
    assert found["product"] == "student"
    assert [(gap["of"], gap["against"]) for gap in found["comparisons"]] == [("student", "direct")]
    assert (
        table["assistant-1"]["parameters"] > table["student"]["parameters"] == table["direct"]["parameters"]
    )
    assert (
        made(folder, "student", "teacher")["identity"]
        == f"folder:{hash_path(folder / 'models' / 'assistant-1')}"
    )
    assert made(folder, "direct", "teacher") == made(folder, "assistant-1", "teacher"), "the first teacher"
    steps = {name: read_json(folder / "runs" / name / "recipe.json")["train"]["steps"] for name in names}
    assert steps == {"assistant-1": 2, "student": 2, "direct": 4}
    check_table(folder, found)


def test_phases_go_on_from_one_another_and_the_control_has_only_the_last(tmp_path: Path) -> None:
    phases = [
        {
            "name": "layers",
            "set": {"objective": [{"kind": "hidden"}], "label.online": True, "train.steps": 3},
        },
        {"name": "predictions"},
    ]
    values = classifier(tmp_path, plan={"kind": "phases", "phases": phases})
    folder, names, found = finished(tmp_path, values, killed_at=2)
    assert names == ["layers", "predictions", "direct"]
    assert found["product"] == "predictions"
    assert [(gap["of"], gap["against"]) for gap in found["comparisons"]] == [("predictions", "direct")]
    assert made(folder, "predictions", "initial")["identity"] == made(folder, "layers", "train")["identity"]
    assert made(folder, "direct", "initial")["identity"] == made(folder, "layers", "initial")["identity"]
    assert read_json(folder / "runs" / "direct" / "recipe.json")["train"]["steps"] == 3 + 4
    check_table(folder, found)


def test_a_general_student_goes_on_to_each_task_beside_one_that_starts_where_it_started(
    tmp_path: Path,
) -> None:
    labelled_file(tmp_path / "other.csv", rows=80, seed=7)
    other = {"train": {"source": str(tmp_path / "other.csv")}, "split": 20, "max_length": 32}
    values = classifier(
        tmp_path, plan={"kind": "tasks", "tasks": [{"name": "other", "set": {"data": other}}]}
    )
    folder, names, found = finished(tmp_path, values, killed_at=3)
    assert names == ["general", "other", "other-alone"]
    assert found["product"] is None
    assert [(gap["of"], gap["against"]) for gap in found["comparisons"]] == [("other", "other-alone")]
    rows = {row["name"]: row for row in found["runs"]}
    assert rows["other"]["builds_on"] == ["general"]
    assert rows["other-alone"]["builds_on"] == ["general's start"]
    assert made(folder, "other", "initial")["identity"] == made(folder, "general", "train")["identity"]
    assert (
        made(folder, "other-alone", "initial")["identity"] == made(folder, "general", "initial")["identity"]
    )
    assert made(folder, "other", "prepare")["sets"]["eval"]["rows"] == 20
    assert made(folder, "general", "prepare")["sets"]["eval"]["rows"] == 30
    check_table(folder, found)


def test_an_encoder_distilled_on_plain_text_goes_on_to_two_classifications(tmp_path: Path) -> None:
    classify: Values = {
        "task": "classification",
        "teacher.finetune": {"epochs": 1, "learning_rate": 1e-3},
        "label": {"top_k": 2, "batch_size": 16},
        "objective": [{"kind": "forward_kl"}],
    }
    tasks = []
    for name, seed in (("first", 3), ("second", 7)):
        rows = labelled_file(tmp_path / f"{name}.csv", rows=80, seed=seed)
        data = {"train": {"source": str(rows)}, "split": 20, "max_length": 32}
        tasks.append({"name": name, "set": {**classify, "data": data}})
    values = masked_recipe(
        tmp_path,
        train={"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
        evaluate={"resamples": 200, "hard_only": False, "speed": False},
        report={"samples": 0},
        plan={"kind": "tasks", "tasks": tasks},
    )
    folder, names, found = finished(tmp_path, values)
    assert names == ["general", "first", "first-alone", "second", "second-alone"]
    assert [row["task"] for row in found["runs"]] == ["masked_lm", *4 * ["classification"]]
    assert [row["metric"] for row in found["runs"]] == ["bits_per_token", *4 * ["accuracy"]]
    pairs = [(gap["of"], gap["against"]) for gap in found["comparisons"]]
    assert pairs == [("first", "first-alone"), ("second", "second-alone")]
    for name, stage in (("first", "train"), ("first-alone", "initial")):
        general, own = (
            load_file(folder / "runs" / run / at / "model" / "model.safetensors")
            for run, at in (("general", stage), (name, "initial"))
        )
        shared = [key for key in general if key.startswith("bert.")]
        assert len(shared) > 20
        assert all((general[key] == own[key]).all() for key in shared)
    check_table(folder, found)


def test_a_chain_of_ones_own_hands_students_on_as_it_says(tmp_path: Path) -> None:
    """Written in any order: who is needed comes first."""
    runs = [
        {"name": "small", "set": {"teacher": {"model": "run:middle", "dtype": "float32"}}},
        {"name": "middle", "set": {"student": {"from_teacher": {"layers": 2}}}},
    ]
    plan = {"kind": "chain", "runs": runs, "compare": {"small": "middle"}}
    folder, names, found = finished(tmp_path, classifier(tmp_path, plan=plan), killed_at=2)
    assert names == ["middle", "small"]
    assert [(gap["of"], gap["against"]) for gap in found["comparisons"]] == [("small", "middle")]
    assert made(folder, "small", "teacher")["identity"] == f"folder:{hash_path(folder / 'models' / 'middle')}"
    assert made(folder, "small", "initial")["how"]["layers"] in ([0], [1])
    check_table(folder, found)
