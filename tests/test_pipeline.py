"""Stages run once, go on where they were cut off, and cannot forget an input."""

import fcntl
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import RecipeError, ResourceError
from stillhouse.locks import LOCK, is_locked, locked
from stillhouse.pipeline import SHELF, Stage, run_pipeline, stage_times
from stillhouse.progress import Silent
from stillhouse.recipe import Recipe, load
from stillhouse.report.table import OUTSIDE, with_outside
from stillhouse.stages import STAGES


class Kitchen:
    """Three toy stages that write down when they run: chop -> cook -> serve."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails_at: str | None = None
        self.notes: list[str] = []
        self.stages = [
            Stage("chop", self._stage("chop", lambda r, _: {"size": r.seed % 10}), reads=("seed",)),
            Stage(
                "cook",
                self._stage("cook", lambda r, before: {"taste": [r.train.steps, before["chop"]["size"]]}),
                reads=("train.steps",),
                after=("chop",),
            ),
            Stage(
                "serve",
                self._stage("serve", lambda _, before: dict(before["cook"])),
                reads=("name",),
                after=("cook",),
            ),
        ]

    def _stage(self, name, work):
        def run(recipe, place: Path, results, watch):
            self.ran.append(name)
            (place / "work").mkdir(exist_ok=True)
            (place / "work" / f"{len(list((place / 'work').iterdir()))}").write_text(name)
            if self.fails_at == name:
                raise RuntimeError("the power is out")
            return work(recipe, results)

        return run

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, what, done, total, extra="") -> None:
        pass

    def end(self) -> None:
        pass

    def run(self, folder: Path, recipe: Recipe, **how) -> list[str]:
        """What ran."""
        self.ran, self.notes = [], []
        run_pipeline(recipe, self.stages, folder, self, **how)
        return self.ran


def recipe(**changes) -> Recipe:
    values = {
        "name": "toy",
        "seed": 1,
        "task": "causal_lm",
        "teacher": {"model": "/nowhere"},
        "student": {"from_teacher": {"layers": 1}},
        "data": {"train": {"source": "/nowhere.jsonl"}},
        "train": {"steps": 5},
        "objective": [{"kind": "forward_kl", "weight": 0.8, "temperature": 2.0}],
    }
    return load.parse_recipe({**values, **changes})


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def test_what_is_done_is_skipped(kitchen, tmp_path):
    assert kitchen.run(tmp_path, recipe()) == ["chop", "cook", "serve"]
    assert kitchen.run(tmp_path, recipe()) == []


def test_a_stage_sees_what_it_declared_and_nothing_else(tmp_path):
    seen = []

    def nosy(r, place, results, watch):
        seen.append((r.train.steps, r.seed, sorted(results)))
        return {"x": r.train.learning_rate}

    stages = [
        Stage("one", lambda r, p, s, w: {}, reads=()),
        Stage("two", lambda r, p, s, w: {}, reads=()),
        Stage("nosy", nosy, reads=("seed", "train.steps"), after=("two",)),
    ]
    with pytest.raises(AttributeError, match="learning_rate"):
        run_pipeline(recipe(), stages, tmp_path, Silent())
    assert seen == [(5, 1, ["two"])]
    stages[2] = replace(stages[2], run=lambda r, p, s, w: {"x": r.name})
    with pytest.raises(AttributeError, match="name"):
        run_pipeline(recipe(), stages, tmp_path, Silent())


def test_a_field_that_a_stage_came_to_read_runs_it_again_only_where_it_is_set(tmp_path):
    seen = []
    stage = Stage(
        "one", lambda r, p, s, w: seen.append(getattr(r, "licence", "unseen")) or {}, reads=("seed",)
    )
    later = replace(stage, reads_if_set=("licence",))
    run_pipeline(recipe(), [stage], tmp_path, Silent())
    run_pipeline(recipe(), [later], tmp_path, Silent())
    assert seen == ["unseen"]
    run_pipeline(recipe(licence="mit"), [later], tmp_path, Silent())
    assert seen == ["unseen", "mit"]
    run_pipeline(recipe(seed=2), [later], tmp_path, Silent())
    assert seen == ["unseen", "mit", None]


def test_a_field_that_no_stage_reads_runs_nothing_and_one_that_is_read_runs_only_what_depends_on_it(
    kitchen, tmp_path
):
    kitchen.run(tmp_path, recipe())
    assert kitchen.run(tmp_path, recipe(description="other words")) == []
    assert kitchen.run(tmp_path, recipe(name="other")) == ["serve"]
    assert kitchen.run(tmp_path, recipe(name="other", train={"steps": 6})) == ["cook", "serve"]
    assert kitchen.run(tmp_path, recipe(name="other", train={"steps": 6}, seed=2)) == [
        "chop",
        "cook",
        "serve",
    ]


def test_an_unchanged_result_runs_nothing_downstream(kitchen, tmp_path):
    kitchen.run(tmp_path, recipe(seed=1))
    assert kitchen.run(tmp_path, recipe(seed=11)) == ["chop"]  # chops to the same size


def test_going_back_takes_the_old_results_from_the_shelf(kitchen, tmp_path):
    kitchen.run(tmp_path, recipe())
    first = (tmp_path / "serve" / "DONE.json").read_bytes()
    assert kitchen.run(tmp_path, recipe(train={"steps": 6})) == ["cook", "serve"]
    assert any(SHELF in note for note in kitchen.notes)
    assert (tmp_path / "serve" / "DONE.json").read_bytes() != first
    assert kitchen.run(tmp_path, recipe()) == []
    assert sum("taken back" in note for note in kitchen.notes) == 2
    assert (tmp_path / "serve" / "DONE.json").read_bytes() == first
    assert kitchen.run(tmp_path, recipe(train={"steps": 6})) == []


def test_the_shelf_does_not_grow_without_end(kitchen, tmp_path):
    for steps in range(5, 12):
        kitchen.run(tmp_path, recipe(train={"steps": steps}))
    assert len(list((tmp_path / SHELF).glob("cook-*"))) == 2


def test_a_stage_cut_off_in_the_middle_goes_on_in_its_own_folder(kitchen, tmp_path):
    kitchen.fails_at = "cook"
    with pytest.raises(RuntimeError, match="power"):
        kitchen.run(tmp_path, recipe())
    assert kitchen.ran == ["chop", "cook"]
    assert not (tmp_path / "cook" / "DONE.json").exists()
    (tmp_path / "cook" / ".half.0badf00d.part").write_text("half")
    kitchen.fails_at = None
    assert kitchen.run(tmp_path, recipe()) == ["cook", "serve"]
    assert "cook: goes on" in kitchen.notes
    assert sorted(path.name for path in (tmp_path / "cook" / "work").iterdir()) == ["0", "1"]
    assert not list((tmp_path / "cook").glob(".*.part"))


def test_what_a_cut_off_stage_left_is_not_taken_for_another_recipes(kitchen, tmp_path):
    kitchen.fails_at = "cook"
    with pytest.raises(RuntimeError):
        kitchen.run(tmp_path, recipe())
    kitchen.fails_at = None
    kitchen.run(tmp_path, recipe(train={"steps": 6}))
    assert [path.name for path in (tmp_path / "cook" / "work").iterdir()] == ["0"]
    assert "cook: goes on" not in kitchen.notes


def test_a_stage_that_fails_when_it_runs_anew_is_not_done(kitchen, tmp_path):
    kitchen.run(tmp_path, recipe())
    kitchen.fails_at = "cook"
    with pytest.raises(RuntimeError):
        kitchen.run(tmp_path, recipe(train={"steps": 6}))
    kitchen.fails_at = None
    assert kitchen.run(tmp_path, recipe(train={"steps": 6})) == ["cook", "serve"]


def test_a_folder_found_by_content_stays_when_the_recipe_changes(kitchen, tmp_path):
    kitchen.stages[1] = replace(kitchen.stages[1], content_keyed=True)
    kitchen.run(tmp_path, recipe())
    kitchen.run(tmp_path, recipe(train={"steps": 6}))
    assert len(list((tmp_path / "cook" / "work").iterdir())) == 2
    assert kitchen.run(tmp_path, recipe(train={"steps": 6})) == []


def test_a_new_version_of_the_code_and_a_changed_file_run_the_stage_again(kitchen, tmp_path):
    state = ["as it was"]
    kitchen.stages[0] = replace(kitchen.stages[0], stamp=lambda view: [view.seed, *state])
    kitchen.run(tmp_path, recipe())
    assert kitchen.run(tmp_path, recipe()) == []
    state[0] = "touched"
    assert kitchen.run(tmp_path, recipe()) == ["chop"]
    kitchen.stages[1] = replace(kitchen.stages[1], version=2)
    assert kitchen.run(tmp_path, recipe()) == ["cook"]


def test_until_only_and_fresh_do_what_they_say(kitchen, tmp_path):
    assert kitchen.run(tmp_path, recipe(), until="cook") == ["chop", "cook"]
    assert kitchen.run(tmp_path, recipe(), only="serve") == ["serve"]
    with pytest.raises(RecipeError, match="'cook' before it is not done"):
        kitchen.run(tmp_path, recipe(train={"steps": 9}), only="serve")
    with pytest.raises(RecipeError, match=r"no stage 'cok'.*cook"):
        kitchen.run(tmp_path, recipe(), until="cok")
    assert kitchen.run(tmp_path, recipe(), fresh=True) == ["chop", "cook", "serve"]
    assert not (tmp_path / SHELF).exists()


def test_a_second_process_is_kept_out_and_a_dead_one_does_not_lock_forever(kitchen, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from stillhouse.locks import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ResourceError, match="another stillhouse is at work"):
            kitchen.run(tmp_path, recipe())
    finally:
        other.kill()
        other.wait()
    started = time.monotonic()
    assert kitchen.run(tmp_path, recipe()) == ["chop", "cook", "serve"]
    assert time.monotonic() - started < 5
    with locked(tmp_path):
        pass


def test_who_only_looks_at_a_lock_keeps_nobody_out(tmp_path):
    """`status`, and processes that wait for each other, hold the lock for an instant when they look at it."""
    with (tmp_path / LOCK).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (handle, fcntl.LOCK_UN)).start()
        with locked(tmp_path):
            assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_times_are_kept_beside_the_results_and_not_in_them(kitchen, tmp_path):
    kitchen.run(tmp_path, recipe())
    times = stage_times(tmp_path, kitchen.stages)
    assert set(times) == {"chop", "cook", "serve"}
    assert all(set(entry) == {"seconds", "seconds_before", "peak_memory_bytes"} for entry in times.values())
    assert json.loads((tmp_path / "serve" / "DONE.json").read_text())["result"] == {"taste": [5, 1]}


def test_what_passes_outside_stages_is_kept_with_the_next_one_so_that_nothing_is_lost(kitchen, tmp_path):
    """A command that began 5 seconds before its pipeline; then one that does again only what comes after the first stage."""
    began = time.perf_counter() - 5.0
    kitchen.run(tmp_path, recipe(), began=began)
    took = time.perf_counter() - began
    times = stage_times(tmp_path, kitchen.stages)
    assert 5.0 <= times["chop"]["seconds_before"] < took
    assert times["cook"]["seconds_before"] < times["chop"]["seconds_before"] - 4.0
    total = sum(each["seconds"] for each in with_outside(times).values())
    assert took - 1.0 < total <= took + 0.01
    assert with_outside(times)[OUTSIDE]["seconds"] >= 5.0
    kitchen.run(tmp_path, recipe(train={"steps": 6}), began=time.perf_counter() - 3.0)
    again = stage_times(tmp_path, kitchen.stages)
    assert again["chop"] == times["chop"]
    assert 3.0 <= again["cook"]["seconds_before"] < 5.0, (
        "the time before a stage that was skipped is that of the next"
    )


def test_a_run_that_was_made_before_such_times_were_kept_has_no_row_of_them() -> None:
    old = {"train": {"seconds": 3.0, "seconds_before": None}}
    assert with_outside(old) == old


# ── the real stages' declarations ───────────────────────────────────────────────────────────────────────────────────


def real(folder: Path, changed: Recipe) -> list[str]:
    """Which of the real stages would run; each "result" tells its inputs apart as the real one's hash would."""
    ran: list[str] = []

    def stand_in(stage: Stage) -> Stage:
        def run(view, place, results, watch):
            ran.append(stage.name)
            made: dict[str, Any] = {}
            read = {path for later in STAGES for path in later.after if path.startswith(f"{stage.name}.")}
            for path in sorted(read, key=lambda path: -path.count(".")):  # the parts before the whole
                place = made
                *steps, last = path.split(".")[1:]
                for step in steps:
                    place = place.setdefault(step, {})
                place.setdefault(last, repr((view, sorted(results.items()))))
            return {**made, "made from": repr((view, sorted(results.items())))}

        return replace(stage, run=run, stamp=None, intact=None)

    run_pipeline(changed, [stand_in(stage) for stage in STAGES], folder, Silent())
    return ran


def test_changing_the_objective_trains_again_and_never_pays_the_teacher_again(tmp_path):
    assert real(tmp_path, recipe()) == [stage.name for stage in STAGES]
    assert real(tmp_path, recipe()) == []
    heavier = real(
        tmp_path,
        recipe(objective=[{"kind": "forward_kl", "weight": 0.5, "temperature": 2.0}, {"kind": "hard"}]),
    )
    assert "train" in heavier
    assert not {"prepare", "teacher", "initial", "label", "control"} & set(heavier)


def test_a_term_of_weight_0_changes_no_stage_but_the_report_which_shows_the_recipe(tmp_path):
    real(tmp_path, recipe())
    soft = {"kind": "forward_kl", "weight": 0.8, "temperature": 2.0}
    more = [soft, {"kind": "hard", "weight": 0.0}, {"kind": "forward_kl", "weight": 0.0, "temperature": 5.0}]
    assert real(tmp_path, recipe(objective=more)) == ["report"]


def test_changing_the_temperature_asks_the_teacher_again_for_kept_targets_depend_on_it(tmp_path):
    real(tmp_path, recipe())
    ran = real(tmp_path, recipe(objective=[{"kind": "forward_kl", "weight": 0.8, "temperature": 3.0}]))
    assert {"label", "train"} <= set(ran)


def test_changing_the_learning_rate_trains_student_and_control_alike_and_labels_nothing(tmp_path):
    real(tmp_path, recipe())
    ran = real(tmp_path, recipe(train={"steps": 5, "learning_rate": 3e-4}))
    assert {"train", "control", "evaluate"} <= set(ran)
    assert not {"prepare", "label", "initial"} & set(ran)


def test_the_name_of_a_run_costs_nothing_but_a_report(tmp_path):
    real(tmp_path, recipe())
    assert real(tmp_path, recipe(name="other")) == ["report"]


def test_a_part_that_a_result_may_lack_counts_only_where_it_is_there(kitchen, tmp_path):
    """So a stage that begins to look at it is not run again in all the folders that have none."""
    kitchen.run(tmp_path, recipe())
    kitchen.stages[2] = replace(kitchen.stages[2], after_if_there=(("chop.salt.grains", None),))
    assert kitchen.run(tmp_path, recipe()) == []
    kitchen.stages[2] = replace(kitchen.stages[2], after_if_there=(("chop.size", "train.early_stopping"),))
    assert kitchen.run(tmp_path, recipe()) == [], "nor where the recipe does not ask for it"
    kitchen.stages[2] = replace(kitchen.stages[2], after_if_there=(("chop.size", None),))
    assert kitchen.run(tmp_path, recipe()) == ["serve"]
    assert kitchen.run(tmp_path, recipe(seed=2)) == ["chop", "cook", "serve"]
