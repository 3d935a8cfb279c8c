"""Search for a recipe's settings with Optuna, so that a search killed at any moment ends with the same winner.

What is tried in trial n is a function of (seed, n) and of the trials before it; the sampler has no state of its own.  A
trial is an ordinary run up to `train`, judged on rows set aside from training; data, the teacher and its soft targets
are shared with all others.  At the end the recipe's own settings and the winner's are run whole, and only then are the
held-out rows read.

Source of the sampler: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (NeurIPS).
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

from ..errors import RecipeError, StillhouseError
from ..files import hash_json, read_json, write_text
from ..measure.metrics import Metric, checked_columns, value_or_none
from ..pipeline import DONE
from ..recipe import Recipe, Tune, parse_recipe
from ..recipe.text import recipe_text
from ..registry import pick, require
from ..seeds import draw_seed
from ..steps.aside import rows_aside
from ..tasks import TASKS
from .bench import Bench, Named
from .execute import announce, run_all
from .outcome import Found
from .planned import Expanded, Planned
from .pruning import Judge, Pruned, checkpoint_every, judged, latency, measured_on
from .space import Space, as_parameters, own_values, space_of, suggested, with_values

STORE = "tuning.db"
FIRST_AT_RANDOM = 5
"""Trials before the sampler learns from the earlier ones."""
WINNER = "winner.yaml"
MEASURED_ON = "measured_on"
"""The study's attribute with a sum of the rows on which its trials are judged."""


def run_tuning(recipe: Recipe, trials: int | None, bench: Bench) -> Found:
    """Run the trials that are missing, then the recipe as it is against the best.

    Returns: results.json, with `tuning`.  Writes winner.yaml.
    """
    wanted, space = recipe.tune or Tune(), space_of(recipe)
    search = Search(recipe, wanted, space, bench)
    for number in range(search.finished(), trials or wanted.trials):
        search.trial(number)
    best = search.best()
    values: dict[str, Any] = best["values"]
    own = own_values(recipe, space)
    default = planned_whole(recipe, {}, wanted, "default", "the recipe as it is")
    winner = planned_whole(recipe, values, wanted, "winner", f"the settings of trial {best['number']}")
    same = values == own
    plan = Expanded(
        "tuning",
        [default] if same else [default, winner],
        [] if same else [("winner", "default")],
        "default" if same else "winner",
        notes=["no trial was better on the rows set aside than the recipe's own settings"] if same else [],
    )
    settled = parse_recipe(with_values(recipe, values), recipe.name)
    write_text(bench.folder / WINNER, recipe_text(settled))
    tuning = {
        **search.found(),
        "best": values,
        "best_trial": best["number"],
        "default": own,
        "recipe": WINNER,
    }
    return run_all(recipe, plan, bench, {"tuning": tuning})


def planned_whole(recipe: Recipe, values: dict[str, Any], wanted: Tune, name: str, about: str) -> Planned:
    """A run to the end, with the same rows set aside as in the trials: they share everything up to the student."""
    made = with_values(recipe, {**values, "data.validation": wanted.validation})
    return Planned(name, {**made, "name": name}, about, name)


def planned_trial(recipe: Recipe, wanted: Tune, number: int, values: dict[str, Any]) -> Planned:
    """Trial `number` as a run, which ends with `train`."""
    fixed = {"data.validation": wanted.validation, "evaluate.also": [], "evaluate.hard_only": False}
    fixed |= {"evaluate.baselines": [], "evaluate.judge": None, "evaluate.memorisation": None}
    made = with_values(recipe, {**values, **fixed})
    made["gate"] = {}
    if prunes(recipe, wanted):
        made["train"]["checkpoint_every"] = checkpoint_every(made["train"])
    name = f"trial-{number:03d}"
    about = ", ".join(f"{key} {value}" for key, value in values.items())
    return Planned(name, {**made, "name": name}, about, name)


def prunes(recipe: Recipe, wanted: Tune) -> bool:
    """Whether trials are looked at before their end; a checkpoint of some students is not yet the student."""
    form = recipe.student.adapter or recipe.student.quantize
    return wanted.prune and wanted.against is None and form is None


class Search:
    """The study on disk, and the run of each trial."""

    def __init__(self, recipe: Recipe, wanted: Tune, space: Space, bench: Bench) -> None:
        self.recipe, self.wanted, self.space, self.bench = recipe, wanted, space, bench
        task = pick(TASKS, recipe.task, "task")
        self.metric: Metric = task.metrics[task.headline]
        self.optuna = require("optuna", "stillhouse tune")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        way = "maximize" if self.metric.higher_is_better else "minimize"
        self.prunes = prunes(recipe, wanted)
        self.study = self.optuna.create_study(
            study_name=recipe.name,
            storage=f"sqlite:///{bench.folder / STORE}",
            directions=[way] if wanted.against is None else [way, "minimize"],
            pruner=self.optuna.pruners.MedianPruner(n_startup_trials=4),
            load_if_exists=True,
        )
        self._same_search()
        self._facts: dict[str, Any] = {}

    def _same_search(self) -> None:
        """Refuse to mix trials of two recipes."""
        asked = self.wanted.model_dump(mode="json", exclude={"trials", "space"})
        space = {
            name: tried if isinstance(tried, list) else tried.model_dump()
            for name, tried in self.space.items()
        }
        mark = hash_json(
            [self.recipe.model_dump(mode="json", exclude={"tune", "name", "description"}), asked, space]
        )
        begun = self.study.user_attrs.get("made_for")
        if begun not in (None, mark):
            raise RecipeError(
                f"{self.bench.folder}: holds trials of another recipe or another search space; name another --folder, or "
                "forget them with --fresh."
            )
        self.study.set_user_attr("made_for", mark)

    def _ended(self) -> list[Any]:
        state = self.optuna.trial.TrialState
        return list(self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))

    def finished(self) -> int:
        """Trials that ended, well or early."""
        return len(self._ended())

    def trial(self, number: int) -> None:
        """Ask, run and tell trial `number`; one that was cut off goes on."""
        trial = self._asked(number)
        one = planned_trial(self.recipe, self.wanted, number, suggested(trial, self.space))
        self._announce(one)
        state = self.optuna.trial.TrialState
        trial.set_user_attr("run", one.name)
        place = self.bench.place(one.name)
        judge = Judge(Named(self.bench.watch, one.name), place, self._judged, trial if self.prunes else None)
        try:
            judge.go_on()
            self.bench.run(one, until="train", watch=judge)
            value = self._judged(place, None)
        except Pruned:
            self.bench.watch.note(f"[{one.name}] ended early: below the median of the earlier trials")
            self.study.tell(trial, state=state.PRUNED)
            self._tidy(place)
            return
        except RecipeError as error:
            if number == 0:
                raise
            self.bench.watch.note(f"[{one.name}] cannot be: {error}")
            trial.set_user_attr("why", str(error))
            self.study.tell(trial, state=state.PRUNED)
            self._tidy(place)
            return
        if value is None:
            trial.set_user_attr("why", f"{self.metric.title} is not a number")
            self.study.tell(trial, state=state.PRUNED)
        else:
            cost = self._cost(trial, place)
            self.study.tell(trial, [value] if cost is None else [value, cost])
            self.bench.watch.note(f"[{one.name}] {self.metric.title} {value:.4f} on the rows set aside")
        self._tidy(place)

    def _asked(self, number: int) -> Any:
        """Trial `number`, from a sampler that is seeded for it; the one that was cut off, if it has all its settings."""
        seed = draw_seed(self.wanted.seed, "trial", number) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a group of its options is experimental
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=FIRST_AT_RANDOM, multivariate=True, constant_liar=False
            )
        state = self.optuna.trial.TrialState
        for cut_off in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            if set(cut_off.params) == set(self.space):
                return self.optuna.trial.Trial(self.study, cut_off._trial_id)
            self.study.tell(cut_off.number, state=state.FAIL)
        own = as_parameters(own_values(self.recipe, self.space), self.space)
        if number == 0 and own and not self.study.get_trials(deepcopy=False, states=(state.WAITING,)):
            self.study.enqueue_trial(own)
        return self.study.ask()

    def _judged(self, place: Path, checkpoint: Path | None) -> float | None:
        """The headline metric on the rows set aside, of the student or of a checkpoint of it.

        Raises: RecipeError if these are not those of the first trial, with which this one could not be compared.
        """
        mark, first = measured_on(self.recipe, place), self.study.user_attrs.get(MEASURED_ON)
        if (
            first not in (None, mark) and self.finished()
        ):  # the first that is judged to its end says which they are
            raise RecipeError(
                "its rows set aside, or their answers, are not those of the first trial, so it is not compared."
            )
        self.study.set_user_attr(MEASURED_ON, mark)
        rows = judged(self.recipe, place, checkpoint, self.bench.watch)
        self._facts = {"rows": len(rows["nll"])}
        try:
            return value_or_none(self.metric, checked_columns(self.metric, rows))
        except StillhouseError:  # not finite: it diverged
            return None

    def _cost(self, trial: Any, place: Path) -> float | None:
        if self.wanted.against == "parameters":
            return float(read_json(place / "initial" / DONE)["result"]["how"]["parameters"])
        if self.wanted.against == "latency":
            if "latency" not in trial.user_attrs:
                trial.set_user_attr("latency", latency(self.recipe, place, self.bench.watch))
            return float(trial.user_attrs["latency"])
        return None

    def _announce(self, latest: Planned) -> None:
        """plan.json, for `status`."""
        earlier = [Planned(f"trial-{number:03d}", {}, "", "") for number in range(self.finished())]
        announce(
            self.recipe,
            Expanded("tuning", [*earlier, latest]),
            self.bench,
            "more trials, then the winner",
            "train",
        )

    def _tidy(self, place: Path) -> None:
        """A finished trial goes on no more: its checkpoints are in the way."""
        shutil.rmtree(place / "train" / "checkpoints", ignore_errors=True)

    def rows(self) -> list[dict[str, Any]]:
        """The ended trials: number, settings, value, cost, and why one ended early."""
        found = []
        state = self.optuna.trial.TrialState
        for number, trial in enumerate(self._ended()):
            whole = trial.state == state.COMPLETE
            found.append(
                {
                    "number": number,
                    "values": suggested(_Told(trial.params), self.space),
                    "value": trial.values[0] if whole else None,
                    "cost": trial.values[1] if whole and len(trial.values) > 1 else None,
                    "why": None if whole else trial.user_attrs.get("why", "below the median"),
                }
            )
        return found

    def best(self) -> dict[str, Any]:
        """The best value; with a cost, the cheapest that is at least as good as the first trial, the recipe's own.

        Raises: RecipeError if no trial has a value.
        """
        rows = [row for row in self.rows() if row["value"] is not None]
        if not rows:
            raise RecipeError("tune: no trial has a value; look at tune.space, or lower train.learning_rate.")
        sign = 1 if self.metric.higher_is_better else -1
        own = own_values(self.recipe, self.space)
        if self.wanted.against is None or rows[0]["number"] != 0 or rows[0]["values"] != own:
            return max(rows, key=lambda row: (sign * row["value"], -row["number"]))
        enough = [row for row in rows if sign * row["value"] >= sign * rows[0]["value"]]
        return min(enough, key=lambda row: (row["cost"], -sign * row["value"]))

    def found(self) -> dict[str, Any]:
        """What the report shows of the search."""
        rows = self.rows()
        return {
            "trials": rows,
            "done": len(rows),
            "pruned": sum(row["value"] is None for row in rows),
            "rows": self._facts.get("rows") or self._rows_aside(),
            "metric": self.metric.name,
            "against": self.wanted.against,
            "importance": self._importance(),
        }

    def _rows_aside(self) -> int:
        return len(rows_aside(self.bench.place("trial-000")))

    def _importance(self) -> dict[str, float]:
        """Share of the spread between trials that each setting explains (PED-ANOVA); {} with too few trials to say."""
        values = [row["value"] for row in self.rows() if row["value"] is not None]
        if len(values) < 8 or len(set(values)) < 2 or len(self.space) < 2:
            return {}
        target = None if self.wanted.against is None else (lambda trial: trial.values[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = self.optuna.importance.get_param_importances(
                self.study, evaluator=self.optuna.importance.PedAnovaImportanceEvaluator(), target=target
            )
        return {name: round(float(share), 4) for name, share in shares.items()}


class _Told:
    """An ended trial's parameters, answering as the trial itself would have."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """What was chosen."""
        return str(self._parameters[name])

    def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
        """What was chosen."""
        return int(self._parameters[name])

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        """What was chosen."""
        return float(self._parameters[name])
