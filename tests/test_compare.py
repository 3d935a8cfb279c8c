"""`stillhouse compare` and `history`: only the same rows are compared, and only real differences are claimed."""

import json
from pathlib import Path

import numpy as np
import pytest

import planted
from stillhouse.compare import HARNESS, compare
from stillhouse.files import read_json, write_json
from stillhouse.kept import ANSWERS, Answered, RowIndex, harness_path, read_answered, rows_path, write_rows
from stillhouse.measure import TASK_METRICS, classification_rows
from stillhouse.measure.text import match_rows
from stillhouse.registry import pick
from stillhouse.tasks import TASKS
from typed import stillhouse


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    return [
        planted.run(place / f"r{seed}", seed, student=accuracy)
        for seed, accuracy in enumerate((0.8, 0.92, 0.81))
    ]


def test_a_better_student_is_called_better_and_an_equal_one_is_not(runs: list[Path]) -> None:
    found = compare(runs, resamples=500)
    better, level = (each["sets"]["eval"]["accuracy"] for each in found["differences"])
    assert better["better"] is True
    assert level["better"] is None
    assert found["differences"][0]["against"] == str(runs[0])


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_of_any_task_is_compared_by_its_own_metrics(kind: str, tmp_path: Path) -> None:
    """The table of another task would leave out the headline metric, silently."""
    pair = planted.two_runs(tmp_path, kind)
    task = pick(TASKS, kind, "task")
    found = compare(pair, resamples=200)
    assert found["metric"] == task.headline
    assert found["runs"][0]["metrics"]["eval"][task.headline]["value"] is not None
    assert found["differences"][0]["sets"]["eval"][task.headline]["better"] is False
    of_others = set(found["runs"][0]["metrics"]["eval"]) - set(task.metrics)
    assert not of_others
    assert (
        f"{task.headline} {'↑' if task.metrics[task.headline].higher_is_better else '↓'}"
        in stillhouse("compare", *pair, "--resamples", 200).out
    )


def test_the_metrics_of_finished_runs_are_those_of_the_tasks() -> None:
    for kind, target in TASKS.items():
        assert pick(TASKS, kind, "task").metrics is TASK_METRICS[kind], target


def test_rows_in_another_order_are_put_in_order_before_they_are_paired(
    runs: list[Path], tmp_path: Path
) -> None:
    import shutil

    shuffled = tmp_path / "shuffled"
    shutil.copytree(runs[1], shuffled)
    order = np.random.default_rng(0).permutation(400)
    index = read_json(shuffled / "evaluate" / "index-eval.json")
    for name in ("keys", "rows", "clusters", "tokens", "labels"):
        index[name] = [index[name][number] for number in order]
    write_json(shuffled / "evaluate" / "index-eval.json", index)
    from stillhouse.kept import read_rows

    path = rows_path(shuffled / "evaluate", "student", "eval")
    write_rows(path, {name: column[order] for name, column in read_rows(path).items()})
    same = compare([runs[1], shuffled], resamples=200)["differences"][0]["sets"]["eval"]["accuracy"]
    assert (same["value"], same["low"], same["high"], same["p"]) == (0.0, 0.0, 0.0, 1.0)


def test_other_rows_are_refused_in_a_sentence(runs: list[Path], tmp_path: Path) -> None:
    other = planted.run(tmp_path / "other", rows=300)
    said = stillhouse("compare", runs[0], other)
    assert said.code == 2
    assert "not measured on the same rows of eval (300 and 400 rows, 100 of them in one run only)" in said.err


def test_another_task_is_refused(runs: list[Path], tmp_path: Path) -> None:
    other = planted.run(tmp_path / "other", task="causal_lm")
    said = stillhouse("compare", runs[0], other)
    assert said.code == 2
    assert "compare runs of one task" in said.err


def test_agreement_with_different_teachers_is_not_compared(runs: list[Path], tmp_path: Path) -> None:
    other = planted.run(tmp_path / "other", 5, teacher={"name": "x", "identity": "x"})
    found = compare([runs[0], other], resamples=200)["differences"][0]["sets"]["eval"]
    assert "accuracy" in found
    assert not [name for name in found if name.startswith("teacher_")]


def test_one_run_is_not_compared_with_nothing(runs: list[Path]) -> None:
    assert stillhouse("compare", runs[0]).code == 2


def test_the_table_names_every_run_and_the_differences(runs: list[Path]) -> None:
    said = stillhouse("compare", *runs, "--resamples", 300)
    assert said.code == 0
    assert "accuracy ↑" in said.out
    assert "better (p =" in said.out


def test_history_lists_runs_by_date(runs: list[Path]) -> None:
    said = stillhouse("history", runs[0].parent, "--format", "json")
    assert [Path(line["run"]).name for line in json.loads(said.out)] == ["r0", "r1", "r2"]
    assert "r2" in stillhouse("history", runs[2]).out


def test_history_of_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    assert stillhouse("history", tmp_path).code == 2


def test_a_cluster_counts_once_however_many_rows_it_has() -> None:
    """Ten copies of each row tell nothing new: the interval must not get narrower."""
    from stillhouse.kept import RowIndex
    from stillhouse.measure import CLASSIFICATION_METRICS, interval

    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 60)
    rows = classification_rows(planted.table(generator, labels, 0.8), labels)
    copied = {name: np.repeat(column, 10, axis=0) for name, column in rows.items()}
    names = [f"d{number // 10}" for number in range(600)]
    index = RowIndex(names, names, names, [1] * 600, [None] * 600)
    metric = CLASSIFICATION_METRICS["accuracy"]
    assert interval(metric, index.units(copied)) == interval(metric, rows)
    assert index.note() is None
    few = RowIndex(names, names, [f"d{number // 100}" for number in range(600)], [1] * 600, [None] * 600)
    assert "6 documents" in str(few.note())


# ── written answers, and tasks of the harness ───────────────────────────────────────────────────────────────────────


def answering(
    run: Path, right: list[bool], start: int = 0, tokens: int = 64, checker: str | None = "c"
) -> None:
    """A student's answers to the prompts from `start` on: right where `right` says so."""
    names = [f"row{start + number}" for number in range(len(right))]
    said = ["yes" if each else "no" for each in right]
    rows = match_rows(said, ["yes"] * len(said)) | {"passed": np.array(right, dtype=np.float64)}
    none: list[str | None] = [None] * len(names)
    index = RowIndex(names, names, names, [1] * len(names), none)
    Answered(index, rows, tokens, checker).write(run / "evaluate", "student")


def fresh(place: Path, *names: str) -> list[Path]:
    return [planted.run(place / name, rows=40) for name in names]


def test_written_answers_are_paired_on_the_same_prompts_in_any_order(tmp_path: Path) -> None:
    """Nine prompts of forty that only one student answers: beyond chance if paired, and not if they were mixed up."""
    one, other = fresh(tmp_path, "one", "other")
    right = [number % 2 == 0 for number in range(40)]
    more = [each or number < 18 for number, each in enumerate(right)]
    answering(one, right)
    answering(other, more)
    before = compare([one, other], resamples=500)
    gap = before["differences"][0]["sets"]["eval"]["pass_rate"]
    assert gap["value"] == pytest.approx(np.mean(more) - np.mean(right))
    assert gap["better"] is True
    assert before["runs"][0]["metrics"]["eval"]["exact_match"]["value"] == 0.5
    order = np.random.default_rng(0).permutation(40)
    kept = read_answered(other, "student")
    assert kept is not None
    mixed = {name: column[order] for name, column in kept.rows.items()}
    Answered(kept.index.some(order), mixed, 64, "c").write(other / "evaluate", "student")
    assert compare([one, other], resamples=500)["differences"] == before["differences"]


def test_answers_to_other_prompts_or_of_another_length_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    one, other, longer, silent = fresh(tmp_path, "one", "other", "longer", "silent")
    answering(one, [True] * 20)
    answering(other, [True] * 20, start=1)
    answering(longer, [True] * 20, tokens=65)
    found = compare([one, other, longer, silent], resamples=200)
    assert not any("exact_match" in each["sets"]["eval"] for each in found["differences"])
    note = found["notes"][ANSWERS]
    assert note.count("other prompts") == 2
    assert f"{silent} are left out: it has kept none" in note
    assert f"{silent} has kept none" in compare([silent, one], resamples=200)["notes"][ANSWERS]
    assert ANSWERS not in compare([silent, fresh(tmp_path, "too")[0]], resamples=200)["notes"]


def test_another_checkers_pass_rate_is_another_metric(tmp_path: Path) -> None:
    one, other = fresh(tmp_path, "one", "other")
    answering(one, [True] * 20)
    answering(other, [False] * 20, checker="d")
    found = compare([one, other], resamples=200)
    assert "pass_rate" not in found["differences"][0]["sets"]["eval"]
    assert found["differences"][0]["sets"]["eval"]["exact_match"]["value"] == -1.0
    assert "its checker is another one" in found["notes"][ANSWERS]


def test_what_a_run_does_not_tell_of_its_student_is_not_compared_though_its_rows_know_it(
    tmp_path: Path,
) -> None:
    """A teacher that only names labels has no distribution; the rows have columns of it all the same."""
    runs = planted.two_runs(tmp_path, "classification")
    assert "teacher_kl" in compare(runs, resamples=200)["differences"][0]["sets"]["eval"]
    for one in runs:
        results = read_json(one / "results.json")
        del results["student"]["metrics"]["eval"]["teacher_kl"]
        write_json(one / "results.json", results)
    assert "teacher_kl" not in compare(runs, resamples=200)["differences"][0]["sets"]["eval"]


def scoring(run: Path, **scores: list[float]) -> None:
    """What the harness gave the student for documents 0, 1, …"""
    found = {
        "scores": {task: {"acc": values} for task, values in scores.items()},
        "documents": {task: [f"{task}{number}" for number in range(len(values))] for task, values in scores.items()},
        "higher_is_better": {task: {"acc": True} for task in scores},
    }  # fmt: skip
    write_json(harness_path(run / "evaluate", "student"), found)


def test_tasks_of_the_harness_are_paired_by_document_and_share_one_error_rate(tmp_path: Path) -> None:
    one, other, third = fresh(tmp_path, "one", "other", "third")
    scoring(one, arc=[0.0] * 12 + [1.0] * 8, level=[1.0, 0.0] * 10)
    scoring(other, arc=[1.0] * 20, level=[1.0, 0.0] * 10)
    scoring(third, level=[1.0] * 10 + [0.0] * 10)
    said = read_json(path := harness_path(other / "evaluate", "student"))
    said["documents"]["level"].reverse()
    said["scores"]["level"]["acc"].reverse()
    write_json(path, said)
    found = compare([one, other, third], resamples=1000)
    gaps, others = (each["sets"][HARNESS] for each in found["differences"])
    assert gaps["arc:acc"]["better"] is True
    assert gaps["arc:acc"]["p_holm"] == pytest.approx(2 * gaps["arc:acc"]["p"])
    assert (gaps["level:acc"]["value"], gaps["level:acc"]["p"]) == (0.0, 1.0)
    assert set(others) == {"level:acc"}
    assert f"arc of {third} left out" in found["notes"][HARNESS]
    table = stillhouse("compare", one, other, third, "--resamples", 200).out
    assert "arc:acc ↑" in table and f"on {HARNESS}" in table


def test_scores_without_their_documents_are_not_compared(tmp_path: Path) -> None:
    """An older version kept numbers alone: nobody knows which document each is of."""
    one, other = fresh(tmp_path, "one", "other")
    scoring(one, arc=[1.0] * 8)
    write_json(
        harness_path(other / "evaluate", "student"),
        {"scores": {"arc": {"acc": [0.0] * 8}}, "higher_is_better": {"arc": {"acc": True}}},
    )
    found = compare([one, other], resamples=200)
    assert not found["differences"][0]["sets"][HARNESS]
    assert f"arc of {other} left out" in found["notes"][HARNESS]
