"""Which of several teachers to learn from: a small run with each, side by side.

A candidate that does not fit (tokenizer, labels, licence, a file that is not there) is named with the reason; all files
are looked at before the first one is tried out.  Each other one teaches the recipe's student for a small share of its steps; the
runs are ordinary runs, in folders of their own, so that what was done is not done again.  The order is that of the students on
the same held-out rows: the better teacher is the one from which more is learned, which need not be the one that scores best.
Rows of one document are resampled together.
"""

import re
from math import ceil
from pathlib import Path
from typing import Any

from ..errors import RecipeError, StillhouseError
from ..files import read_json, write_json
from ..kept import FOLDER, read_index, read_rows, rows_path
from ..measure import Rows, difference
from ..pipeline import DONE, run_pipeline
from ..progress import Watch
from ..recipe import Recipe, parse_recipe
from ..registry import pick
from ..stages import STAGES
from ..static import check_teachers
from ..steps.finish import stage_rows
from ..tasks import TASKS
from .candidates import compatibility, labelling, terms_of, whole_recipe, with_teacher

SHARE, FEWEST_STEPS, STEPS_OF_EPOCHS, ROWS = 0.02, 10, 30, 500
"""Of the recipe's steps, but at least so many; where it counts epochs, so many; held-out rows that are read."""


def rank_teachers(recipe: Recipe, candidates: list[str], folder: Path, watch: Watch) -> dict[str, Any]:
    """Try each candidate, and rank them; the result is written to `folder`/teachers.json as well.

    Args: candidates: sources as in `teacher.model` (a pinned one as SOURCE@sha256:HEX), or files of any teacher's section; see
        `candidates`.
    Returns: {"candidates": rows from the best on, "recommended", "because", "metric", …}.
    Raises: RecipeError if none, or one twice, is named, or the recipe has no teacher.
    """
    if not candidates or len(set(candidates)) < len(candidates):
        raise RecipeError("--candidates: name at least one teacher, each once, with commas between them.")
    if not recipe.has_teacher:
        raise RecipeError("objective: no term uses a teacher; add a forward_kl term.")
    folders = _folders(candidates, folder)
    misfits = {one: why for one in candidates if (why := _fault(recipe, one))}
    if misfits:
        named = "; ".join(f"{one} ({why.rstrip('.')})" for one, why in misfits.items())
        watch.note(f"cannot be tried out: {named}")
    rows: list[dict[str, Any]] = []
    for candidate in candidates:
        if candidate in misfits:
            rows.append({"candidate": candidate, "fits": False, "why": misfits[candidate]})
            continue
        watch.note(f"candidate {candidate}")
        rows.append(_tried(recipe, candidate, folders[candidate], watch))
    found = {
        **ranked(rows, pick(TASKS, recipe.task, "task"), folders, recipe.seed),
        "steps": small_steps(recipe),
        "of_steps": recipe.train.steps,
    }
    write_json(folder / "teachers.json", found)
    return found


def probe(recipe: Recipe, candidate: str) -> Recipe:
    """The recipe with another teacher, a small share of its steps, and no more rows than these can read."""
    values, steps = with_teacher(recipe, candidate), small_steps(recipe)
    wanted = steps * recipe.train.batch_size * recipe.train.accumulate
    train = {**values.get("train", {}), "steps": steps, "report_to": []}
    train.pop("epochs", None)
    for name in ("train", "extra", "unlabelled"):
        if (one := getattr(recipe.data, name)) is not None:
            values["data"][name]["limit"] = min(wanted, one.limit or wanted)
    if recipe.evaluate.perturb and not recipe.data.generate:
        values["data"]["writer"] = None  # who was to paraphrase the held-out rows
    values |= {
        "train": train,
        "evaluate": {
            **values.get("evaluate", {}),
            "rows": min(recipe.evaluate.rows or ROWS, ROWS),
            "also": [],
            **ALONE,
        },
        "report": {"samples": 0},
        "gate": {},
    }
    return parse_recipe(values, f"the probe of {candidate}")


def small_steps(recipe: Recipe) -> int:
    """Steps of a small run."""
    return max(FEWEST_STEPS, ceil(SHARE * recipe.train.steps)) if recipe.train.steps else STEPS_OF_EPOCHS


def _fault(recipe: Recipe, candidate: str) -> str | None:
    """Why the candidate cannot be tried out, as far as its files and the recipe tell before anything is loaded."""
    try:
        check_teachers(probe(recipe, candidate))
    except StillhouseError as error:
        return str(error)
    return None


ALONE: dict[str, Any] = {
    "baselines": [], "judge": None, "memorisation": None, "harness": None, "answers": None, "perturb": [], "swap": [], "seeds": 1,
}  # fmt: skip
"""What a small run does without: the ranking reads the headline metric of the held-out rows, and what teaching took."""


def _tried(recipe: Recipe, candidate: str, place: Path, watch: Watch) -> dict[str, Any]:
    """What a run with this candidate found, or why there can be none."""
    row: dict[str, Any] = {"candidate": candidate, "fits": False, "why": None}
    small = None
    try:
        small = probe(recipe, candidate)
        run_pipeline(small, STAGES, place, watch)
    except StillhouseError as error:
        row["why"] = str(error)
    try:
        if small is None:
            return row
        if row["why"] is None:
            return {**row, **_read(recipe, small, candidate, place), "fits": True}
        return {**row, "compatibility": compatibility(small, place)}
    except Exception as error:  # whatever it is, the other candidates' runs are paid for
        done = f"its run in {place} is done and cannot be read ({type(error).__name__}: {error})"
        return {**row, "why": row["why"] or done}


def _read(recipe: Recipe, small: Recipe, candidate: str, place: Path) -> dict[str, Any]:
    """What the finished run of a candidate found, and what follows for all of the recipe's rows."""
    found, facts = read_json(place / "results.json"), read_json(place / "prepare" / DONE)["result"]
    metric = found["metric"]
    stages = stage_rows(place, STAGES)
    read_index(place, "eval")  # the ranking reads both again: what is damaged is this candidate's fault alone
    _student_rows(place)
    return {
        "compatibility": compatibility(small, place),
        **terms_of(small, facts),
        "metric": metric,
        "quality": found["teacher"]["metrics"]["eval"].get(metric),  # an API's texts have no probabilities
        "student": found["student"]["metrics"]["eval"][metric],
        "gain": found["gain_over_hard_only"],
        "parameters": found["teacher"].get("parameters"),
        "throughput": found["teacher"].get("throughput"),
        "labelling": labelling(whole_recipe(recipe, candidate), place),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "seconds_teaching": sum(stages[name]["seconds"] for name in ("teacher", "label", "train", "control")),
    }


def ranked(rows: list[dict[str, Any]], task: Any, folders: dict[str, Path], seed: int) -> dict[str, Any]:
    """The rows from the best student's teacher on, each with its paired difference from the first; and what follows.

    None is recommended where students were measured on answers of different teachers."""
    metric = task.metrics[task.headline]
    sign = -1.0 if metric.higher_is_better else 1.0
    fitting = sorted((row for row in rows if row["fits"]), key=lambda row: sign * row["student"]["value"])
    ordered = fitting + [row for row in rows if not row["fits"]]
    result: dict[str, Any] = {"metric": task.headline, "candidates": ordered, "recommended": None}
    if not fitting:
        return {**result, "because": "no candidate fits"}
    best = fitting[0]
    index = read_index(folders[best["candidate"]], "eval")
    first = index.units(_student_rows(folders[best["candidate"]]))
    level, apart = [], []
    for row in fitting[1:]:
        place = folders[row["candidate"]]
        order = index.places(read_index(place, "eval"))
        if order is None:
            row["behind"] = None  # another tokenizer cuts the rows in another way
            if _answered_by_teacher(folders[best["candidate"]]) or _answered_by_teacher(place):
                apart.append(row["candidate"])
            continue
        own = index.units({name: column[order] for name, column in _student_rows(place).items()})
        row["behind"] = difference(metric, own, first, resamples=2000, seed=seed).as_json()
        if row["behind"]["low"] <= 0.0 <= row["behind"]["high"]:
            level.append(row["candidate"])
    if apart:
        because = (
            f"each student was measured on its own teacher's answers ({', '.join([best['candidate'], *apart])}), so "
            "these cannot be compared; give the held-out rows answers of their own"
        )
        return {**result, "because": because, "note": index.note()}
    because = f"its student is the best of {len(fitting)} on {metric.title}"
    if level:
        because += f", though these rows do not tell it from that of {', '.join(level)}"
    return {**result, "recommended": best["candidate"], "because": because, "note": index.note()}


def _answered_by_teacher(place: Path) -> bool:
    """Whether the held-out rows had no answers, and took those of the run's teacher."""
    done = place / "label" / DONE
    return done.exists() and "eval" in read_json(done)["result"].get("sets", {})


def _student_rows(place: Path) -> Rows:
    return read_rows(rows_path(place / FOLDER, "student", "eval"))


def _folders(candidates: list[str], folder: Path) -> dict[str, Path]:
    """A run folder for each, named after it."""
    names = [
        re.sub(r"[^A-Za-z0-9.-]+", "-", one.partition("@sha256:")[0])[-60:].strip("-") for one in candidates
    ]
    return {
        one: folder / (f"{number}-{name}" if names.count(name) > 1 else name)
        for number, (one, name) in enumerate(zip(candidates, names, strict=True), 1)
    }
