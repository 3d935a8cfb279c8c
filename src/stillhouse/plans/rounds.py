"""Rounds: where does the student fail on fresh rows?  The teacher labels or answers those, and it learns on.

Each round is an ordinary run: it starts from the student before it and reads the first rows and all that were chosen so
far.  Beside it, the control takes as many rows at random.  Source: Ross et al. 2011 (DAgger), arXiv:1011.0686.
"""

import json
import time
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..answers import answer_rows
from ..asking import LEDGER, Ledger
from ..data.encode import read_examples
from ..errors import RecipeError
from ..files import hash_json, read_json, read_jsonl, write_json, write_text
from ..judge import LEDGER as JUDGED
from ..measure import Metric
from ..measure import Rows as Statistics
from ..measure.text import ANSWER_METRICS
from ..pipeline import DONE
from ..progress import Watch
from ..recipe import Recipe
from ..recipe.plan import OF_TEACHER, Rounds
from ..registry import pick
from ..report.numbers import number, with_interval
from ..steps.fetching import OWN_TOKENS
from ..steps.intact import own_measures
from ..steps.prepare import located, task_of
from ..tasks import TASKS, Task
from .bench import Bench
from .check import refuse_rounds, with_rows
from .compare import difference_over_seeds, student_rows, value_over_seeds
from .execute import announce
from .expand import measured_once
from .failing import Pool, fresh_rows, readable, worst_first
from .further import writing_takes
from .outcome import Found, collect, seconds_spent
from .planned import Expanded, Planned, plain, scaled, starting_from, uncontrolled

CHOSEN = "chosen"
FIRST, HARD_ONLY = "round-0", "hard-only"


def run_rounds(recipe: Recipe, bench: Bench) -> Found:
    """All rounds until one gains nothing that is beyond chance.  Returns: results.json, with `rounds`."""
    refuse_rounds(recipe)
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    return _Rounds(recipe, wanted, bench).run()


class _Rounds:
    """The runs made so far, and the rows chosen for each of the two ways."""

    def __init__(self, recipe: Recipe, wanted: Rounds, bench: Bench) -> None:
        self.recipe, self.wanted, self.bench = recipe, wanted, bench
        self.base = plain(recipe)
        self.runs: list[Planned] = []
        self.chosen: dict[str, list[str]] = {"round": [], "random": []}
        self.by_round: dict[str, list[str | None]] = {"round": [], "random": []}
        """Files of the rows of each round alone, of which others are written."""
        self.choosing = 0.0
        """Seconds that choosing rows took."""
        self.spent: list[float] = []
        """Seconds up to the beginning of each round."""

    def run(self) -> Found:
        """Round 0, then rounds and their controls."""
        first = Planned(FIRST, {**self.base, "name": FIRST}, "before any round", FIRST)
        pool = self._pool(first)
        self._make(first)
        history: list[Found] = []
        why = f"All {self.wanted.most} rounds were run."
        for at in range(1, self.wanted.most + 1):
            before = FIRST if at == 1 else f"round-{at - 1}"
            left = {key: fresh for key, fresh in pool.items() if key not in self.chosen["round"]}
            if over := self._over_budget(at, begun=self._is_begun(f"round-{at}", before, left)):
                why = over
                break
            if not left:
                why = f"The pool was empty after round {at - 1}."
                break
            worst = self._worst(f"round-{at}", before, left)
            if not worst:
                why = f"Stopped before round {at}: the checker finds no wrong answer in the rest of the pool."
                break
            self._round("round", at, worst, pool)
            at_random = [key for key in pool if key not in self.chosen["random"]]
            self._round("random", at, at_random[: len(worst)], pool)
            gain = self._gain(f"round-{at}", before)
            history.append({"round": at, "rows": len(self.chosen["round"]), **gain})
            self.bench.watch.note(f"[round-{at}] {self._said(gain)}")
            if gain["better"] is not True:
                why = f"Stopped after round {at}: its gain is not beyond chance."
                break
        return self._found(history, why)

    def _pool(self, first: Planned) -> Pool:
        """The pool beside the prepared rows of the run `first`: what is wrong with it is found before anything is trained."""
        announce(self.recipe, Expanded("rounds", [first]), self.bench, "perhaps another round")
        self.bench.run(first, until="prepare")
        return pool_of(self.recipe, self.bench.place(first.name), self._task, self.bench.watch)

    def _make(self, one: Planned) -> None:
        self.runs = measured_once([*self.runs, one])
        announce(self.recipe, Expanded("rounds", self.runs), self.bench, "perhaps another round")
        self.bench.run(self.runs[-1])

    def _round(self, kind: str, at: int, keys: list[str], pool: Pool) -> None:
        """Add `keys` to what was chosen this way, and train on from the student before."""
        self.chosen[kind] += keys
        name, before = f"{kind}-{at}", FIRST if at == 1 else f"{kind}-{at - 1}"
        path = self._listed(name, self.chosen[kind], pool)
        if self.wanted.write:
            self.by_round[kind].append(self._listed(f"{name}-alone", keys, pool))
        started = starting_from(self.base, before)
        values = with_rows(self.recipe, started, {"source": path}, self.by_round[kind])
        if self.recipe.teacher.finetune is not None:  # fine-tuned once, before the first round
            values["teacher"] = {
                "model": str(self.bench.teacher(FIRST).absolute()),
                "dtype": self.recipe.teacher.dtype,
            }
        how = f"where {before} fails ({self.wanted.by})" if kind == "round" else "at random"
        by = ", answered by the teacher" if self.wanted.answers is not None else ""
        by += ", and others written like them" if self.wanted.write else ""
        about = f"{len(self.chosen[kind]):,} rows of the pool, chosen {how}{by}"
        self._make(Planned(name, {**uncontrolled(values), "name": name}, about, name))

    def _listed(self, name: str, keys: list[str], pool: Pool) -> str:
        """The file of these rows, which keeps its time if it has them already."""
        path = self.bench.folder / CHOSEN / f"{name}.jsonl"
        text = "".join(json.dumps(pool[key].written, ensure_ascii=False) + "\n" for key in keys)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        return str(path.absolute())

    @cached_property
    def _task(self) -> Task:
        """One for all: it remembers the pool's rows where the teacher reads them in tokens of its own."""
        return task_in(self.recipe, self.bench.place(FIRST))

    def _worst(self, name: str, before: str, left: Pool) -> list[str]:
        """Keys of the rows on which the student of the run `before` fails most, for the run `name`; looked for once."""
        place = self.bench.place(before)
        found = self._models_of(before)
        student = located(found["train"]["folder"], place / "train")
        teacher = located(found["teacher"]["folder"], place / "teacher") if "teacher" in found else None
        mark, kept = self._mark(found, left), self._choice(name)
        saved: Found = read_json(kept) if kept.exists() else {"from": None}
        if saved["from"] != mark:
            start = time.perf_counter()
            worst = worst_first(self.recipe, left, self._task, student, teacher, self.bench.watch)
            seconds = round(time.perf_counter() - start, 3)
            paid = paid_so_far(self.bench.folder, [LEDGER])
            saved = {"from": mark, "keys": worst[: self.wanted.rows], "seconds": seconds, "paid": paid}
        if saved.get("write") != self._writes:
            saved = {**saved, "write": self._writes}
            write_json(kept, saved)
        self.choosing += saved["seconds"]
        keys: list[str] = saved["keys"]
        return keys

    def _choice(self, name: str) -> Path:
        """Where it is kept which rows the round `name` chose."""
        return self.bench.folder / CHOSEN / f"{name}.json"

    @property
    def _writes(self) -> list[dict[str, Any]]:
        return [one.model_dump(mode="json") for one in self.wanted.write]

    def _models_of(self, before: str) -> Found:
        """What the run `before` says of its student, and of its teacher where that decides where the student fails."""
        stages = ("train", "teacher") if self.wanted.by in OF_TEACHER else ("train",)
        return {stage: read_json(self.bench.place(before) / stage / DONE)["result"] for stage in stages}

    def _mark(self, models: Found, left: Pool) -> str:
        """Of what decides which rows of `left` are chosen."""
        decides = self.wanted.model_dump(mode="json", include={"by", "rows", "answers"})
        return hash_json([[one["identity"] for one in models.values()], decides, self._checker(), list(left)])

    def _is_begun(self, name: str, before: str, left: Pool) -> bool:
        """Whether the round's rows are chosen, as they would be now, and as much is to be written like them."""
        if not self._choice(name).exists():
            return False
        saved = read_json(self._choice(name))
        same = saved["from"] == self._mark(self._models_of(before), left)
        return bool(same and saved.get("write", self._writes) == self._writes)

    def _checker(self) -> Any:
        """What decides which answers are wrong."""
        judged = self.recipe.evaluate.answers
        if self.wanted.by != "checker" or judged is None:
            return None
        return [judged.max_new_tokens, judged.checker, own_measures(self.recipe)]

    def _has_labels(self) -> bool:
        """Whether training rows have answers of their own, so that round 0 could have a control."""
        found = read_json(self.bench.place(FIRST) / "control" / DONE)["result"]
        return found["folder"] is not None

    def _over_budget(self, at: int, begun: bool) -> str | None:
        """Why round `at` is not begun; None if it probably stays within the budget, or there is none.

        A round takes as long as the one before it; the first one twice as long as what is like it in the run before any
        round, as its control takes as long again.
        """
        places = [self.bench.place(one.name) for one in self.runs]
        self.spent.append(self.choosing + sum(map(seconds_spent, places)))
        budget = self.wanted.budget
        if budget is not None and budget.seconds is not None:
            alike = ("label", "train", "evaluate")
            first = 2 * sum(read_json(places[0] / stage / DONE)["seconds"] for stage in alike)
            takes = self.spent[-1] - self.spent[-2] if at > 1 else first
            if self.spent[-1] + takes > budget.seconds:
                return (
                    f"Stopped before round {at}, which would take about {takes:,.0f} s: {self.spent[-1]:,.0f} s of the budget of "
                    f"{budget.seconds:,} s are spent."
                )
        if budget is not None and budget.dollars is not None and not begun:  # what a begun one asked is paid
            return self._over_dollars(at, budget.dollars)
        return None

    def _over_dollars(self, at: int, most: float) -> str | None:
        """The same for what is paid."""
        paid = paid_so_far(self.bench.folder)
        costs = self._will_cost(at)
        if paid + costs <= most:
            return None
        return (
            f"Stopped before round {at}, which would cost about ${costs:,.4f}: ${paid:,.4f} of the budget of "
            f"${most:g} are spent."
        )

    def _will_cost(self, at: int) -> float:
        """Dollars of round `at` and its control: as much as the round before it, and at least for each row what one cost so far.

        Of the first one, or where an older version chose the rows before, what writing costs at most, and for each row that a
        teacher is asked about what one cost so far.
        """
        paid = paid_so_far(self.bench.folder, [LEDGER])  # rounds are not judged in pairs, round 0 is
        first = self.bench.place(FIRST)
        a_row = paid / max(1, rows_asked(first) + 2 * self.wanted.rows * (at - 1))
        before = {} if at == 1 else read_json(self._choice(f"round-{at - 1}"))
        if "paid" in before:  # next to nothing if it found its texts bought already, or few rows
            pays = bool(self.recipe.teacher.apis or self.wanted.write)
            return max(float(paid - before["paid"]), 2 * self.wanted.rows * a_row * pays)
        written = writing_takes(self.recipe, first, self.bench.watch, timed=False) or {}
        asks = self.wanted.unanswered_rows if self.recipe.teacher.apis else 0
        return 2 * (asks * a_row + (written.get("dollars") or 0.0))

    def _gain(self, run: str, before: str) -> Found:
        """What the round brought, and where it and the one before stand, in the metric that judges."""
        metric = judge_of(self.recipe)
        draws = (self.recipe.evaluate.resamples, self.recipe.seed)
        ours, theirs, at_random = (
            self._judged(name) for name in (run, before, run.replace("round", "random"))
        )
        return {
            **difference_over_seeds(metric, [ours], [theirs], *draws),
            "metric": metric.name,
            "title": metric.title,
            "before": value_over_seeds(metric, [theirs], *draws),
            "after": value_over_seeds(metric, [ours], *draws),
            "at_random": value_over_seeds(metric, [at_random], *draws),
        }

    def _judged(self, run: str) -> Statistics:
        """Per-row statistics of a run's student for that metric."""
        place = self.bench.place(run)
        if self.wanted.judge == "headline":
            return student_rows(place)
        assert self.recipe.evaluate.answers is not None
        written = read_jsonl(place / "evaluate" / "answers-student.jsonl")
        return answer_rows(
            written, read_jsonl(place / "prepare" / "eval-rows.jsonl"), self.recipe.evaluate.answers
        )

    def _said(self, gain: Found) -> str:
        before, at_random = (number(gain[name]["value"]) for name in ("before", "at_random"))
        return f"{gain['title']}: {before} → {with_interval(gain['after'])}; {at_random} with rows at random"

    def _found(self, history: list[Found], why: str) -> Found:
        names = [FIRST, *(f"round-{row['round']}" for row in history)]
        compare = [(name, before) for before, name in pairwise(names)]
        compare += [(name, name.replace("round", "random")) for name in names[1:]]
        kept = [name for name, row in zip(names[1:], history, strict=True) if row["better"] is True]
        product = kept[-1] if kept else FIRST
        control = None
        if kept and has_hard_only(self.recipe) and self._has_labels():
            made = next(one for one in self.runs if one.name == product)
            self._make(hard_only(self.recipe, len(kept), made))
            control = (HARD_ONLY, "student")
            compare.append((product, HARD_ONLY))
        plan = Expanded("rounds", self.runs, compare, product, control=control)
        return collect(self.recipe, plan, self.bench, {"rounds": {"history": history, "why": why}})


def hard_only(recipe: Recipe, rounds: int, product: Planned | None = None) -> Planned:
    """The control of all rounds: as many steps from the beginning on hard targets alone, on the rows of `product`.

    Its rate rises and falls once in all these steps: beginning again costs rounds something, and their control nothing.
    """
    values = starting_from(scaled(plain(recipe), rounds + 1), FIRST, initial=True)
    if product is not None:
        values["teacher"] = product.values["teacher"]
        if recipe.task != "classification":
            values["data"] = product.values["data"]
    if recipe.task == "classification":  # what has no label says nothing to it
        labelled = [one for one in values["data"]["generate"] if one.get("keep_label")]
        values["data"] = {**values["data"], "unlabelled": None, "augment": None, "generate": labelled}
        if not labelled and "paraphrase" not in recipe.evaluate.perturb:
            values["data"]["writer"] = None
    terms: list[dict[str, Any]] = [{"kind": "hard", "weight": 1.0}]
    # whoever is asked in words must be named by a term; this one weighs nothing
    if recipe.teacher.asked and recipe.task == "classification":
        terms.append({"kind": "forward_kl", "weight": 0.0})
    values |= {"name": HARD_ONLY, "objective": terms, "rollouts": None}
    values = uncontrolled(values)
    return Planned(HARD_ONLY, values, "hard targets alone, for all rounds' steps", HARD_ONLY)


def task_in(recipe: Recipe, first: Path) -> Task:
    """The task of the run in `first`, whose rows are prepared."""
    task: Task = task_of(recipe, read_json(first / "prepare" / DONE)["result"], first / "prepare")
    return task


def pool_of(recipe: Recipe, first: Path, task: Task, watch: Watch) -> Pool:
    """The pool in its seeded order, as examples and as rows, without what the run in `first` trains on or holds out.

    Raises: RecipeError if nothing is left, or if a part of the teacher cannot say anything of it.
    """
    assert isinstance(recipe.plan, Rounds)
    _refuse_unread(recipe.plan, read_json(first / "prepare" / DONE)["result"])
    kept = first / "prepare"
    known = [one for kind in ("train", "eval") for one in read_examples(kept / f"{kind}.parquet")]
    pool = readable(recipe, fresh_rows(recipe, watch), task, known)
    if not pool:
        raise RecipeError(
            f"plan.pool: no row of {recipe.plan.pool.source} can be used, or all are in the training or held-out rows already; "
            "give it other rows."
        )
    return pool


def paid_so_far(folder: Path, names: Sequence[str] = (LEDGER, JUDGED)) -> float:
    """Dollars that the runs of a plan in `folder` paid together, to teachers, writers and judges, or by some of these ledgers."""
    dollars = 0.0
    for name in names:
        if (folder / name).exists():
            with Ledger(folder / name) as ledger:
                dollars += ledger.spent()
    return dollars


def rows_asked(first: Path) -> int:
    """Rows of the run in `first` that its teacher is asked about: to learn from, and to measure on; 0 before they are prepared."""
    if not (first / "prepare" / DONE).exists():
        return 0
    facts = read_json(first / "prepare" / DONE)["result"]
    sets = [facts["sets"][name] for name in ("train", *facts["evaluated"])]
    return sum(int(one.get("asked", one["rows"])) for one in sets)


def has_hard_only(recipe: Recipe) -> bool:
    """Whether hard targets alone are a control of rounds: not where the texts of an API are the hard targets."""
    return recipe.evaluate.hard_only and not (
        recipe.teacher.api is not None and recipe.task != "classification"
    )


def _refuse_unread(wanted: Rounds, facts: Found) -> None:
    """Raises: RecipeError if rows are chosen by what the panel says of them, and a member says something of prepared rows alone."""
    apart = [one["name"] for one in facts["panel"] or [] if OWN_TOKENS in one]
    if apart and wanted.by in OF_TEACHER:
        raise RecipeError(
            f"plan.by: {wanted.by} compares the student with the whole panel, and {apart[0]}, which has another tokenizer, does not "
            "read the pool; use by: uncertainty, or take it off teacher.panel."
        )


def judge_of(recipe: Recipe) -> Metric:
    """The metric that a round's gain is measured in."""
    task = pick(TASKS, recipe.task, "task")
    assert isinstance(recipe.plan, Rounds)
    if recipe.plan.judge == "headline":
        headline: Metric = task.metrics[task.headline]
        return headline
    checked = recipe.evaluate.answers is not None and recipe.evaluate.answers.checker is not None
    return ANSWER_METRICS["pass_rate" if checked else "exact_match"]
