"""A search ends with the same winner wherever it was cut off, and never looks at the held-out rows."""

import math
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tiny
from plans.kitchen import asked, classifier
from stillhouse.data.encode import Example
from stillhouse.errors import RecipeError
from stillhouse.files import atomic_folder, read_json
from stillhouse.plans import pruning, tune
from stillhouse.plans.bench import Bench
from stillhouse.plans.planned import Planned
from stillhouse.plans.pruning import Judge, Pruned
from stillhouse.plans.space import as_parameters, default_space, own_values, space_of, with_values
from stillhouse.progress import Silent
from stillhouse.recipe import Recipe, Tune, parse_recipe
from stillhouse.train.checkpoints import all_checkpoints, step_of
from typed import hurried, process, start, stillhouse, write_recipe

pytest.importorskip("optuna")
SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "train.batch_size": [4, 8, 16],
    "objective.0.temperature": {"low": 1.0, "high": 8.0},
}


def recipe(folder: Path, **tuned: Any) -> Recipe:
    return parse_recipe(classifier(folder, tune={"space": SPACE, **tuned}))


class Toy(Bench):
    """Runs nothing; where a trial is worth what its settings are worth, and the power fails when it is told to."""

    def __init__(self, folder: Path, fails_at: int | None = None) -> None:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        super().__init__(folder, Silent())
        self.fails_at, self.ran = fails_at, 0
        self.now: dict[str, Any] = {}

    def run(self, one: Planned, *_: Any, **__: Any) -> Any:
        self.now = one.values
        self.ran += 1
        if self.ran == self.fails_at:
            raise KeyboardInterrupt
        return {}


def worth(values: dict[str, Any]) -> float:
    """Best at a learning rate of 2e-3, temperature 3 and batches of 8."""
    train = values["train"]
    lost = abs(math.log(train["learning_rate"] / 2e-3)) + abs(values["objective"][0]["temperature"] - 3) / 4
    return 1.0 / (1.0 + lost + 0.1 * (train["batch_size"] != 8))


def search(
    one: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, trials: int, fails_at: int | None = None
) -> tune.Search:
    bench = Toy(folder, fails_at)
    assert one.tune is not None
    found = tune.Search(one, one.tune, space_of(one), bench)
    monkeypatch.setattr(found, "_judged", lambda place, checkpoint: worth(bench.now))
    for number in range(found.finished(), trials):
        found.trial(number)
    return found


def test_a_search_cut_off_twice_tries_the_same_and_ends_with_the_same_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tmp_path)
    whole = search(one, tmp_path / "whole", monkeypatch, 9).rows()
    for fails_at in (3, 5):  # in the 3rd trial, and then in the 7th
        with pytest.raises(KeyboardInterrupt):
            search(one, tmp_path / "cut", monkeypatch, 9, fails_at)
    again = search(one, tmp_path / "cut", monkeypatch, 9)
    assert again.rows() == whole
    assert len({str(row["values"]) for row in whole}) == 9


def test_a_trial_that_was_cut_off_before_it_had_its_settings_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tmp_path)
    whole = search(one, tmp_path / "whole", monkeypatch, 7).rows()
    for moment, trials in ((1, 0), (2, 6)):
        begun = search(one, tmp_path / "cut", monkeypatch, trials)
        trial = begun._asked(begun.finished())
        if moment == 2:
            trial.suggest_categorical("train.batch_size", ["4", "8", "16"])
    assert search(one, tmp_path / "cut", monkeypatch, 7).rows() == whole


def test_the_first_trial_is_the_recipe_as_it_is_and_the_best_is_no_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tmp_path)
    found = search(one, tmp_path / "s", monkeypatch, 9)
    rows = found.rows()
    assert rows[0]["values"] == own_values(one, space_of(one))
    best = found.best()
    assert best["value"] == max(row["value"] for row in rows) >= rows[0]["value"]
    shares = found._importance()
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


def test_more_trials_later_go_on_where_fewer_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe(tmp_path)
    whole = search(one, tmp_path / "a", monkeypatch, 7).rows()
    few = search(one, tmp_path / "b", monkeypatch, 4).rows()
    assert search(one, tmp_path / "b", monkeypatch, 7).rows() == whole
    assert whole[:4] == few


def test_trials_of_another_recipe_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(recipe(tmp_path), tmp_path / "s", monkeypatch, 2)
    other = parse_recipe(classifier(tmp_path, tune={"space": SPACE}, seed=3))
    with pytest.raises(RecipeError, match="holds trials of another recipe"):
        search(other, tmp_path / "s", monkeypatch, 3)


def test_two_aims_have_a_front_and_the_winner_is_the_smallest_that_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tmp_path, against="parameters")
    monkeypatch.setattr(
        tune.Search, "_cost", lambda self, trial, place: float(self.bench.now["train"]["batch_size"])
    )
    found = search(one, tmp_path / "s", monkeypatch, 5)
    rows = found.rows()
    enough = [row["cost"] for row in rows if row["value"] >= rows[0]["value"]]
    assert found.best()["cost"] == min(enough)


def test_a_trial_that_diverges_or_cannot_be_is_over_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tmp_path)
    bench = Toy(tmp_path / "s")
    assert one.tune is not None
    found = tune.Search(one, one.tune, space_of(one), bench)
    monkeypatch.setattr(
        found, "_judged", lambda place, checkpoint: None if bench.ran == 2 else worth(bench.now)
    )
    for number in range(4):
        found.trial(number)
    rows = found.rows()
    assert [row["value"] is None for row in rows] == [False, True, False, False]
    assert rows[1]["why"].endswith("is not a number")


# ── ending early ────────────────────────────────────────────────────────────────────────────────────────────────────


class Trial:
    """What a judge needs of optuna's."""

    def __init__(self, known: dict[int, float], bad_from: int) -> None:
        self.reported, self.bad_from, self._trial_id = dict(known), bad_from, 0
        self.storage = self
        self.intermediate_values = known

    def get_trial(self, number: int) -> "Trial":
        return self

    def report(self, value: float, step: int) -> None:
        assert step not in self.intermediate_values, "what was reported before the kill is not reported again"
        self.reported[step] = value

    def should_prune(self) -> bool:
        return max(self.reported) >= self.bad_from


def test_each_checkpoint_is_judged_once_and_a_bad_trial_ends(tmp_path: Path) -> None:
    place = tmp_path / "trial"
    trial = Trial({20: 0.5}, bad_from=60)
    judge = Judge(Silent(), place, lambda _, checkpoint: float(str(checkpoint)[-2:]) / 100, trial)
    for step in (10, 20, 30):
        with atomic_folder(place / "train" / "checkpoints" / f"checkpoint-{step}"):
            pass
        if step < 30:
            for _ in range(2):
                judge.step("train", step + 1, 50)
        else:
            with pytest.raises(Pruned):
                judge.step("train", step + 1, 50)
    assert trial.reported == {20: 0.5, 40: 0.2, 60: 0.3}


def test_a_checkpoint_that_is_damaged_or_of_a_later_step_is_not_judged(tmp_path: Path) -> None:
    checkpoints = tmp_path / "train" / "checkpoints"
    (checkpoints / "checkpoint-10").mkdir(parents=True)
    with atomic_folder(checkpoints / "checkpoint-20"):
        pass
    trial = Trial({}, bad_from=100)
    judge = Judge(Silent(), tmp_path, lambda *_: 1.0, trial)
    judge.step("train", 11, 50)
    assert trial.reported == {}
    judge.step("train", 21, 50)
    assert trial.reported == {40: 1.0}


class Learning(Toy):
    """A trial has four checkpoints on its way, and goes on after the last one that is there."""

    def run(self, one: Planned, *given: Any, **options: Any) -> Any:
        super().run(one, *given, **options)
        place = self.place(one.name) / "train" / "checkpoints"
        reached = max((step_of(path) for path in all_checkpoints(place)), default=0)
        for step in range(reached + 1, 6):
            options["watch"].step("train", step, 5)
            with atomic_folder(place / f"checkpoint-{step}"):
                pass
        return {}


def test_a_search_killed_between_a_report_and_its_decision_still_ends_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    one = recipe(tmp_path)
    decide = optuna.trial.Trial.should_prune
    killed = False

    def deciding(self: Any) -> bool:
        nonlocal killed
        if self.number == 4 and not killed:
            killed = True
            raise KeyboardInterrupt
        return bool(decide(self))

    def worth_at(place: Path, checkpoint: Path | None) -> float:
        """The fifth begins badly and would end well."""
        if place.name != "trial-004":
            return 0.5
        return 0.1 if checkpoint is not None and step_of(checkpoint) == 1 else 0.9

    def searched(folder: Path) -> list[dict[str, Any]]:
        found = tune.Search(one, one.tune or Tune(), space_of(one), Learning(folder))
        monkeypatch.setattr(found, "_judged", worth_at)
        for number in range(found.finished(), 5):
            found.trial(number)
        return found.rows()

    whole = searched(tmp_path / "whole")
    assert whole[4]["value"] is None
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", deciding)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "cut")
    assert searched(tmp_path / "cut") == whole


# ── the space ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_default_space_holds_the_recipe_and_the_recipe_can_hold_all_of_it(tmp_path: Path) -> None:
    one = parse_recipe(classifier(tmp_path))
    space = space_of(one)
    assert {
        "train.learning_rate",
        "train.batch_size",
        "objective.*.temperature",
        "objective.1.weight",
    } == set(space)
    assert as_parameters(own_values(one, space), space) is not None


def test_a_star_sets_every_term_that_has_the_field(tmp_path: Path) -> None:
    objective = [
        {"kind": "forward_kl", "temperature": 2.0},
        {"kind": "hard"},
        {"kind": "reverse_kl", "temperature": 2.0},
    ]
    one = parse_recipe(classifier(tmp_path, objective=objective))
    made = with_values(one, {"objective.*.temperature": 3.0})["objective"]
    assert [term.get("temperature") for term in made] == [3.0, None, 3.0]


def test_where_targets_are_cut_off_few_temperatures_are_tried_for_each_asks_the_teacher(
    tmp_path: Path,
) -> None:
    values = {**classifier(tmp_path), "task": "causal_lm", "teacher": {"model": "/nowhere"}}
    assert default_space(parse_recipe(values))["objective.*.temperature"] == [1.0, 2.0, 4.0]


def test_the_default_space_tries_what_is_written_down_for_it(tmp_path: Path) -> None:
    """See tune.space in docs/recipe.md: number of draws around the recipe's, layer maps, and no temperature that changes by itself."""
    values = {**classifier(tmp_path), "task": "causal_lm", "teacher": {"model": "/nowhere"}}
    drawn = default_space(parse_recipe({**values, "label": {"samples": 200}}))
    assert drawn["label.samples"] == [100, 200], "250 is the most that is kept"
    assert drawn["objective.*.temperature"] == [1.0, 2.0, 4.0]
    objective = [
        {"kind": "forward_kl", "temperature": 2.0}, {"kind": "hard"}, {"kind": "hidden", "layers": "last"},
        {"kind": "attention", "layers": {1: 2}}, {"kind": "embeddings"},
    ]  # fmt: skip
    space = default_space(parse_recipe(classifier(tmp_path, objective=objective, label={"online": True})))
    assert {name for name in space if name.startswith("objective")} == {
        "objective.*.temperature", *(f"objective.{number}.weight" for number in (1, 2, 3, 4)), "objective.2.layers",
    }  # fmt: skip
    assert space["objective.2.layers"] == ["uniform", "last", "skip"]
    assert "label.samples" not in space and "label.top_k" not in space


class Noting(Toy):
    """Remembers what every trial was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tried: list[Recipe] = []

    def run(self, one: Planned, *given: Any, **options: Any) -> Any:
        self.tried.append(parse_recipe(one.values))
        return super().run(one, *given, **options)


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        ({"label.samples": [15, 30, 60]}, lambda made: made.label.samples),
        ({"objective.2.layers": ["uniform", "last", "skip"]}, lambda made: made.objective[2].layers),
        ({"student.from_teacher.layers": [1, 2, 3]}, lambda made: made.student.from_teacher.layers),
        (
            {"student.from_config": [{"config": {"num_hidden_layers": n}} for n in (1, 2)]},
            lambda made: made.student.from_config.config["num_hidden_layers"],
        ),
    ],
)
def test_a_search_tries_draws_layer_maps_and_shapes_of_the_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: dict[str, list[Any]], seen: Any
) -> None:
    """Each is in the recipe that a trial runs, and what the search remembers of a trial is what it ran."""
    objective = [{"kind": "forward_kl"}, {"kind": "hard"}, {"kind": "hidden", "layers": "last"}]
    values = classifier(tmp_path, objective=objective, label={"online": True}, tune={"space": space})
    if "label.samples" in space:
        values |= {"objective": objective[:2], "label": {"samples": 30}}
    if "student.from_config" in space:
        values["student"] = {"from_config": {"config": {"num_hidden_layers": 2}}}
    one = parse_recipe(values)
    bench = Noting(tmp_path / "s")
    found = tune.Search(one, one.tune or Tune(), space_of(one), bench)
    monkeypatch.setattr(found, "_judged", lambda place, checkpoint: worth(bench.now))
    for number in range(12):
        found.trial(number)
    ((name, choices),) = space.items()
    tried = [seen(made) for made in bench.tried]
    remembered = [row["values"][name] for row in found.rows()]
    if name == "student.from_config":
        remembered = [value["config"]["num_hidden_layers"] for value in remembered]
        choices = [value["config"]["num_hidden_layers"] for value in choices]
    assert tried == remembered
    assert set(tried) == set(choices)


def test_a_search_over_draws_and_depth_asks_the_teacher_once_for_each_number_of_draws(tmp_path: Path) -> None:
    """For real: every trial learns from targets of its own number of draws, with a student of its own depth."""
    space = {"label.samples": [8, 16], "student.from_teacher.layers": [1, 2]}
    values = tiny.language_recipe(
        tmp_path, label={"samples": 8}, tune={"space": space, "trials": 4, "prune": False}
    )
    values["student"] = {"from_teacher": {"layers": 2, "by": "every_nth"}}
    values["evaluate"] = {"rows": 12, "resamples": 200, "speed": False, "hard_only": False}
    values["report"] = {"samples": 0}
    path = write_recipe(tmp_path / "r.yaml", values)
    with asked() as counts, hurried():
        said = stillhouse("tune", path, "--folder", tmp_path / "t")
    assert said.code == 0, said.err
    rows = read_json(tmp_path / "t" / "results.json")["tuning"]["trials"]
    results = {}
    for number, row in enumerate(rows):
        place = tmp_path / "t" / "runs" / f"trial-{number:03d}"
        results[number] = {
            stage: read_json(place / stage / "DONE.json")["result"] for stage in ("label", "initial")
        }
        assert results[number]["label"]["meta"]["samples"] == row["values"]["label.samples"]
        assert (
            len(results[number]["initial"]["how"]["layers"]) == row["values"]["student.from_teacher.layers"]
        )
    drawn = {row["values"]["label.samples"] for row in rows}
    assert len(drawn) == 2
    assert sum(counts) == len(drawn) * results[0]["label"]["examples"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"train.learning_rat": [1, 2]}, "no such key. Did you mean 'learning_rate'"),
        ({"train.learning_rate": {"low": -1.0, "high": 1.0}}, "tune.space.train.learning_rate = -1.0"),
        ({"objective.*.alpha": [0.1, 0.2]}, "no entry of objective has the field alpha"),
        ({"seed": [0, 1]}, "tune.space.seed: trials would be judged on other rows than one another"),
        ({"data.split": [20, 40]}, "tune.space.data.split: trials would be judged on other rows"),
        ({"data.train.limit": [20, 40]}, "tune.space.data.train.limit: trials would be judged on other rows"),
    ],
)
def test_a_wrong_space_is_one_sentence_before_anything_runs(tmp_path: Path, space: Any, said: str) -> None:
    path = write_recipe(tmp_path / "r.yaml", classifier(tmp_path, tune={"space": space}))
    found = stillhouse("tune", path, "--folder", tmp_path / "t")
    assert found.code == 2
    assert said in found.err
    assert not (tmp_path / "t").exists()


def test_where_rows_are_cut_is_tried_for_a_classifier_alone(tmp_path: Path) -> None:
    """Of a language model's rows another part would be measured; a classifier's keep their labels."""
    space = {"tune": {"space": {"data.max_length": [16, 32]}}}
    assert list(space_of(parse_recipe(classifier(tmp_path / "one", **space)))) == ["data.max_length"]
    with pytest.raises(RecipeError, match="tune.space.data.max_length: trials would be judged on other rows"):
        space_of(parse_recipe(tiny.language_recipe(tmp_path / "two", **space)))


def test_a_trial_whose_rows_or_answers_are_others_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API answers the rows set aside anew for another setting: the easiest answers would win."""
    one = recipe(tmp_path)
    bench = Toy(tmp_path / "s")
    assert one.tune is not None
    found = tune.Search(one, one.tune, space_of(one), bench)
    monkeypatch.setattr(tune, "measured_on", lambda recipe, place: "other" if bench.ran == 2 else "rows")
    monkeypatch.setattr(tune, "judged", lambda *_: {"nll": [0.0], "right": bench.now})
    monkeypatch.setattr(tune, "checked_columns", lambda metric, rows: rows)
    monkeypatch.setattr(
        tune, "value_or_none", lambda metric, rows: 9.0 if bench.ran == 2 else worth(rows["right"])
    )
    for number in range(4):
        found.trial(number)
    rows = found.rows()
    assert [row["value"] is None for row in rows] == [False, True, False, False]
    assert "are not those of the first trial" in rows[1]["why"]
    assert found.best()["value"] < 9.0


def test_rows_set_aside_are_told_apart_by_what_is_foretold_of_them_in_whatever_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spelling:
        def __init__(self, first: int) -> None:
            self.first = first

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            assert skip_special_tokens, "one tokenizer's end of a text is not another's"
            return "".join(chr(ord("a") + one - self.first) for one in ids)

    def mark(first: int, *rows: tuple[str, str]) -> str:
        made = [
            Example("", row, [first, *ids], [-100, *ids], [0], len(text))
            for row, text in rows
            for ids in [[first + ord(letter) - ord("a") for letter in text]]
        ]
        monkeypatch.setattr(pruning, "rows_aside", lambda place: made)
        monkeypatch.setattr(pruning, "read_json", lambda path: {"result": {}})
        monkeypatch.setattr(pruning, "task_of", lambda *_: SimpleNamespace(tokenizer=Spelling(first)))
        return pruning.measured_on(recipe(tmp_path), tmp_path)

    known = mark(5, ("1", "ab"), ("2", "cd"))
    assert mark(50, ("1", "ab"), ("2", "cd")) == known
    assert (
        len(
            {
                known,
                mark(5, ("1", "ab"), ("3", "cd")),
                mark(5, ("1", "ab"), ("2", "ce")),
                mark(5, ("1", "ab")),
            }
        )
        == 4
    )


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    path = write_recipe(tmp_path / "r.yaml", classifier(tmp_path))
    said = stillhouse("tune", path, "--folder", tmp_path / "t")
    assert said.code == 2
    assert "pip install 'stillhouse[tune]'" in said.err


# ── for real ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_search_killed_twice_ends_with_the_same_best_trial_and_asks_the_teacher_once(
    tmp_path: Path,
) -> None:
    values = classifier(tmp_path, tune={"space": SPACE, "trials": 6})
    path = write_recipe(tmp_path / "r.yaml", {**values, "train": {**values["train"], "steps": 10}})
    words = ["tune", path, "--folder", tmp_path / "cut"]
    for trial in ("trial-001", "trial-004"):
        running = start(*words, start_new_session=True, stdout=None, stderr=None)
        until = time.monotonic() + 500
        while not (tmp_path / "cut" / "runs" / trial / "train" / "BEGUN.json").exists():
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    for folder in ("cut", "whole"):
        said = process("tune", path, "--folder", tmp_path / folder)
        assert said.code == 0, said.err
    cut, whole = (read_json(tmp_path / folder / "results.json")["tuning"] for folder in ("cut", "whole"))
    assert cut["trials"] == whole["trials"]
    assert cut["best"] == whole["best"]
    shards = list((tmp_path / "cut" / "runs").glob("*/label/targets-*/*.parquet"))
    assert {path.stat().st_ino for path in shards} == {shards[0].stat().st_ino}
    assert Tune().trials == 20
