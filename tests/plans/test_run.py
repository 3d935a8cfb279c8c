"""Whole plans: the teacher is asked once, what is done stays done, and the numbers are those of the runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from plans.kitchen import asked, classifier
from stillhouse.files import read_json
from typed import Said, hurried, stillhouse, write_recipe

SWEEP = {"train.learning_rate": [1e-3, 3e-3], "objective.0.temperature": [2.0, 4.0]}


def run(inputs: Path, folder: Path, *words: object, **changes: Any) -> Said:
    recipe = write_recipe(inputs / f"{folder.name}.yaml", classifier(inputs, **changes))
    with hurried():
        return stillhouse("run", recipe, "--folder", folder, *words)


def sweeping(inputs: Path) -> dict[str, Any]:
    """What makes the recipe a sweep that reads a further data set."""
    plain = classifier(inputs)
    more = inputs / "more.csv"
    if not more.exists():
        tiny.labelled_file(more, rows=20, seed=9)
    also = [{"source": str(more), "name": "elsewhere"}]
    return {"sweep": SWEEP, "evaluate": {**plain["evaluate"], "also": also}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A finished sweep of four runs, and what the teacher was asked for it."""
    inputs = tmp_path_factory.mktemp("sweep")
    with asked() as counts:
        said = run(inputs, inputs / "swept", **sweeping(inputs))
    assert said.code == 0, said.err
    return inputs, counts


def test_the_teacher_is_asked_and_fine_tuned_once_for_all_runs(swept: tuple[Path, list[int]]) -> None:
    """Also where runs differ in temperature: all outcomes are kept, so one answer serves every temperature."""
    inputs, counts = swept
    runs = sorted((inputs / "swept" / "runs").iterdir())
    assert len(runs) == 4
    assert sum(counts) == read_json(runs[0] / "label" / "DONE.json")["result"]["examples"] == 90
    for stage in ("prepare", "teacher"):
        assert sum("taken_from" in read_json(one / stage / "DONE.json") for one in runs) == 3
    assert len({read_json(one / "train" / "DONE.json")["result"]["identity"] for one in runs}) == 4


@pytest.mark.slow
def test_each_run_is_an_ordinary_run_that_the_same_recipe_would_have_made(
    swept: tuple[Path, list[int]], tmp_path: Path
) -> None:
    inputs, _ = swept
    one = inputs / "swept" / "runs" / "learning_rate-0.003.temperature-4"
    terms = [{"kind": "forward_kl", "weight": 0.9, "temperature": 4.0}, {"kind": "hard", "weight": 0.1}]
    train = {**classifier(inputs)["train"], "learning_rate": 3e-3}
    said = run(inputs, tmp_path / "alone", objective=terms, train=train)
    assert said.code == 0, said.err
    same = "student/model.safetensors"
    assert (one / same).read_bytes() == (tmp_path / "alone" / same).read_bytes()


def test_the_table_has_each_runs_own_numbers(swept: tuple[Path, list[int]]) -> None:
    folder = swept[0] / "swept"
    found = read_json(folder / "results.json")
    assert [gap["on"] for gap in found["comparisons"]] == 3 * ["eval"] + 3 * ["elsewhere"]
    for row in found["runs"]:
        own = read_json(folder / "runs" / row["runs"][0] / "results.json")
        assert row["quality"]["value"] == own["student"]["metrics"]["eval"]["accuracy"]["value"]
        assert (
            row["also"]["elsewhere"]["value"] == own["student"]["metrics"]["elsewhere"]["accuracy"]["value"]
        )
    page = (folder / "report.html").read_text()
    assert "learning_rate 0.003, temperature 4" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_second_time_nothing_runs_and_nothing_is_asked(
    swept: tuple[Path, list[int]], tmp_path: Path
) -> None:
    inputs, _ = swept
    folder = tmp_path / "swept"
    shutil.copytree(inputs / "swept", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")}
    with asked() as counts:
        said = run(inputs, folder, **sweeping(inputs))
    assert said.code == 0, said.err
    assert counts == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("DONE.json")} == before


def test_status_and_report_know_a_plans_folder(swept: tuple[Path, list[int]], tmp_path: Path) -> None:
    folder = tmp_path / "swept"
    shutil.copytree(swept[0] / "swept", folder)
    found = json.loads(stillhouse("status", folder, "--format", "json").out)
    assert found["next"] is None
    assert {row["state"] for row in found["runs"].values()} == {"done"}
    (folder / "runs" / "learning_rate-0.003.temperature-2" / "train" / "DONE.json").unlink()
    said = stillhouse("status", folder)
    assert "next       learning_rate-0.003.temperature-2" in said.out
    assert Path(stillhouse("report", folder).out.strip()) == folder / "report.html"


def test_a_plan_and_a_run_do_not_share_a_folder(swept: tuple[Path, list[int]], tmp_path: Path) -> None:
    inputs, _ = swept
    said = run(inputs, inputs / "swept")
    assert said.code == 2
    assert "holds a plan of several runs" in said.err
    (tmp_path / "recipe.json").write_text("{}")
    said = run(inputs, tmp_path, sweep=SWEEP)
    assert said.code == 2
    assert "holds a single run" in said.err


def test_stages_of_one_run_are_not_asked_of_several(swept: tuple[Path, list[int]]) -> None:
    said = run(swept[0], swept[0] / "swept", "--until", "train", sweep=SWEEP)
    assert said.code == 2
    assert "this recipe makes several" in said.err


@pytest.mark.slow
def test_a_plan_is_priced_before_it_is_spent_and_what_is_shared_counts_once(tmp_path: Path) -> None:
    plan = {"kind": "assistants", "sizes": [{"from_teacher": {"layers": 1, "by": "every_nth"}}]}
    recipe = write_recipe(tmp_path / "r.yaml", classifier(tmp_path, plan=plan))
    with hurried(), asked() as counts:
        said = stillhouse("plan", recipe, "--folder", tmp_path / "plan", "--format", "json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert counts == []
    assert set(found["runs"]) == {"assistant-1", "student", "direct"}
    assert found["at_most"] is True
    assert "teacher of assistant-1" in found["runs"]["direct"]["taken"]
    assert found["total_seconds"] == pytest.approx(
        sum(row["seconds"] for row in found["runs"].values()), abs=0.2
    )
    assert not list((tmp_path / "plan" / "runs").glob("*/train"))


def test_a_shape_that_a_fetched_teacher_cannot_have_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """Until it is fetched its files cannot be looked at; then they are, before anything is trained."""
    from types import SimpleNamespace

    from stillhouse.errors import RecipeError
    from stillhouse.plans.bench import UNPREDICTED
    from stillhouse.progress import Silent
    from stillhouse.recipe import Student, Target

    classifier(tmp_path)
    seen = SimpleNamespace(
        task="classification",
        student=Student(target=Target(parameters="1K")),
        data=SimpleNamespace(max_length=32),
    )
    with pytest.raises(RecipeError, match="no shape of this teacher meets"):
        UNPREDICTED.run(
            seen, tmp_path, {"prepare": {"teacher": {"folder": str(tmp_path / "teacher")}}}, Silent()
        )


def test_a_search_and_an_ablation_have_a_price_and_spend_nothing_of_it(tmp_path: Path) -> None:
    space = {"train.batch_size": [8, 16], "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    recipe = write_recipe(tmp_path / "r.yaml", classifier(tmp_path, tune={"space": space, "trials": 5}))
    found = {}
    with hurried(), asked() as counts:
        for what in ("tune", "ablate"):
            folder = tmp_path / what
            said = stillhouse(what, recipe, "--price", "--folder", folder, "--format", "json")
            assert said.code == 0, said.err
            found[what] = json.loads(said.out)
            assert not list((folder / "runs").glob("*/train"))
    assert counts == []
    assert list(found["tune"]["runs"]) == ["5 trials", "default", "winner"]
    assert "teacher of trial-000" in found["tune"]["runs"]["winner"]["taken"]
    one = read_json(tmp_path / "tune" / "runs" / "trial-000" / "plan" / "plan.json")["seconds"]
    shared, each = one["teacher"] + one["label"] + one["initial"], one["train"]
    trials = found["tune"]["runs"]["5 trials"]["seconds"]
    assert shared + 5 * each <= trials + 0.6
    assert trials <= shared + 5 * 2 * each + 0.6
    assert len(found["ablate"]["runs"]) == 9
    assert "teacher of everything.seed-0" in found["ablate"]["runs"]["without-hard.seed-2"]["taken"]


@pytest.mark.slow
def test_generations_learn_from_each_other_and_the_ensemble_is_their_mean(tmp_path: Path) -> None:
    evaluate = {**classifier(tmp_path)["evaluate"], "hard_only": True}
    plan = {"kind": "generations", "count": 2}
    said = run(tmp_path, tmp_path / "born", plan=plan, evaluate=evaluate, gate={"min_gain": 1.5})
    assert said.code == 6, said.err
    assert "gate.min_gain: the gain over the control on accuracy is" in said.err
    folder = tmp_path / "born"
    found = read_json(folder / "results.json")
    assert [row["name"] for row in found["runs"]] == ["generation-1", "generation-2", "longer", "ensemble"]
    second = read_json(folder / "runs" / "generation-2" / "prepare" / "DONE.json")["result"]
    assert second["teacher"]["name"] == "generation-1"
    first = folder / "runs" / "generation-1" / "train" / "model" / "model.safetensors"
    assert (folder / "models" / "generation-1" / "model.safetensors").read_bytes() == first.read_bytes()
    begun = [read_json(folder / "runs" / name / "initial" / "DONE.json")["result"]["how"]["parameters"] for name in ("generation-1", "generation-2")]  # fmt: skip
    assert begun[0] == begun[1]
    assert found["product"] == "generation-2"
    ours = read_json(folder / "runs" / "generation-2" / "results.json")["student"]["metrics"]["eval"]
    first = read_json(folder / "runs" / "generation-1" / "results.json")["controls"]["hard_only"]["metrics"][
        "eval"
    ]
    gain = next(row["gain"] for row in found["runs"] if row["name"] == "generation-2")
    assert gain["value"] == pytest.approx(ours["accuracy"]["value"] - first["accuracy"]["value"])


def test_an_ensemble_of_equals_is_each_of_them_and_of_two_the_mean_probability(tmp_path: Path) -> None:
    import torch

    from stillhouse.models.load import load_tokenizer
    from stillhouse.probe import together
    from stillhouse.tasks import make_task
    from tiny import opinions, save_classifier

    folder = save_classifier(tmp_path / "one", layers=1)
    task = make_task("classification", load_tokenizer(folder), 32, ["bad", "good"])
    model = task.load(folder)
    other = task.load(folder)
    with torch.no_grad():
        other.classifier.weight.mul_(-3)
    examples, _ = task.encode(
        [{**row, "id": str(number), "where": ""} for number, row in enumerate(opinions(6))]
    )
    batch = task.collate(examples)
    with torch.no_grad():
        p, q = (
            one.head.logits(one.hidden).softmax(-1) for one in (task.scores(m, batch) for m in (model, other))
        )
        both = together([model, other], task, batch)
        twice = together([model, model], task, batch)
    torch.testing.assert_close(both.head.logits(both.hidden).softmax(-1), (p + q) / 2)
    torch.testing.assert_close(twice.head.logits(twice.hidden).softmax(-1), p)


def test_rounds_add_the_rows_on_which_the_student_is_farthest_from_the_teacher(tmp_path: Path) -> None:
    from tiny import labelled_file

    pool = labelled_file(tmp_path / "pool.csv", rows=60, seed=9)
    classifier(tmp_path)
    trained = (tmp_path / "rows.csv").read_text().splitlines()[1:31]
    pool.write_text(
        "\n".join([*pool.read_text().splitlines(), *trained]) + "\n"
    )  # known rows are never chosen
    plan = {"kind": "rounds", "pool": {"source": str(pool)}, "rows": 10, "most": 1}
    with asked() as counts:
        said = run(tmp_path, tmp_path / "rounds", plan=plan)
    assert said.code == 0, said.err
    folder = tmp_path / "rounds"
    lines = [
        (folder / "chosen" / f"{name}.jsonl").read_text().splitlines() for name in ("round-1", "random-1")
    ]
    assert sum(counts) == 90 + len({*lines[0], *lines[1]}), (
        "the first rows once, then only those that were chosen"
    )
    found = read_json(folder / "results.json")
    assert found["rounds"]["history"][0]["rows"] == 10
    assert {row["name"] for row in found["runs"]} == {"round-0", "round-1", "random-1"}
    chosen = [json.loads(line) for line in (folder / "chosen" / "round-1.jsonl").read_text().splitlines()]
    assert len(chosen) == 10
    assert all(set(row) == {"text"} for row in chosen), "labels of the pool are not looked at"
    assert not {row["text"] for row in chosen} & {line.rpartition(",")[0] for line in trained}
    history = found["rounds"]["history"][0]
    own = read_json(folder / "runs" / "round-1" / "results.json")["student"]["metrics"]["eval"]["accuracy"]
    assert history["after"]["value"] == own["value"] and history["metric"] == "accuracy"
    times = {path: path.stat().st_mtime_ns for path in (folder / "chosen").iterdir()}
    with asked() as counts:
        assert run(tmp_path, folder, plan=plan).code == 0
    assert counts == []
    assert {path: path.stat().st_mtime_ns for path in (folder / "chosen").iterdir()} == times


@pytest.mark.slow
def test_ablate_prints_what_each_term_is_worth(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", classifier(tmp_path))
    with hurried():
        said = stillhouse("ablate", recipe, "--seeds", 1, "--folder", tmp_path / "ablation")
    assert said.code == 0, said.err
    assert "without hard" in said.out and "everything" in said.out
    found = read_json(tmp_path / "ablation" / "results.json")
    assert [gap["of"] for gap in found["comparisons"]] == ["without forward_kl", "without hard"]
