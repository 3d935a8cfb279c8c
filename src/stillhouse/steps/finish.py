"""results.json, report.html, and the student with its model card."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import GateError
from ..files import (
    MANIFEST,
    atomic_folder,
    link_or_copy,
    read_json,
    read_jsonl,
    sweep_parts,
    write_json,
    write_text,
)
from ..measure import ANSWER_METRICS
from ..measure.metrics import TOP_CLASSES
from ..models.machine import machine
from ..pipeline import Results, Stage, stage_times
from ..recipe import Recipe
from ..recipe.data import LEARNED_FROM
from ..recipe.text import recipe_text
from ..registry import pick
from ..report.card import render_card
from ..report.html import render_html
from ..sources.terms import Terms, of_licence, of_past_answers, of_provider, student_licence
from ..tasks import TASKS
from .beyond import BEYOND
from .fetching import helpers, terms_of, terms_of_writers
from .paid import economics_of


def collect(recipe: Any, run: Path, results: Results, stages: Sequence[Stage]) -> dict[str, Any]:
    """Everything that was found, as results.json has it."""
    facts, found = results["prepare"], results["evaluate"]
    task = pick(TASKS, recipe.task, "task")
    models = {name: {**found["costs"].get(name, {}), **values} for name, values in found["models"].items()}
    sets = facts["sets"] | results["label"].get("sets", {})
    gains = found["gains"]
    few = len(facts["labels"]) <= TOP_CLASSES
    rows = stage_rows(run, stages)
    took = sum(row["seconds"] for row in rows.values())
    return {
        "name": recipe.name,
        "description": recipe.description,
        "task": recipe.task,
        "metric": task.headline,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "machine": machine(),
        "base_model": _hub_id(facts["teacher"]["identity"]),
        "licence": licences(recipe, facts),
        "metrics": {
            metric.name: {
                "title": metric.title,
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
            }
            for metric in [*task.metrics.values(), *ANSWER_METRICS.values()]
            if (metric.name in task.metrics and not (few and metric.name == "teacher_top3"))
            or metric.name in models["student"]["metrics"]["eval"]
        },
        "teacher": {
            "name": facts["teacher"]["name"],
            "identity": results["teacher"]["identity"],
            **({"panel": results["teacher"]["panel"]} if "panel" in results["teacher"] else {}),
            **models["teacher"],
        },
        "student": {"name": recipe.name, "how": results["initial"]["how"], **models["student"]},
        "controls": {name: models[name] for name in ("initial", "hard_only") if name in models},
        "floor": {"name": FLOORS[recipe.task], "metrics": found["floors"]},
        "retention": found["retentions"]["eval"],
        "retentions": found["retentions"],
        "gain_over_hard_only": gains["eval"][task.headline] if gains else None,
        "gains": gains,
        "datasets": {name: sets[name] for name in found["retentions"]},
        "data": {
            **_data(facts),
            "dropped_answers": _answers_dropped(results["label"]),
            "asked": _what_was_told(results),
        },
        "stages": rows,
        "said": results["label"].get("said") or results["teacher"].get("said"),
        "economics": economics_of(recipe, facts, models, found["judged"], took, run),
        "samples": found["samples"],
        "disagreement_examples": found["disagreement_examples"],
        "reliability": found["reliability"],
        "notes": found["notes"],
        "seeds": found["seeds"],
        "early_stopping": _looks(results),
        "harness": found["harness"],
        **{name: found[name] for name in (*EVIDENCE, *BEYOND)},
    }


def licences(recipe: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Who came under which licence, what follows for the student, and what the recipe's author took upon themselves."""
    data = [facts["licences"][name] for name in LEARNED_FROM if name in facts["licences"]]
    taught = teachers_terms(recipe.teacher, facts)
    teachers = (
        [
            one["licence"] if "provider" not in one else terms.subject
            for one, terms in zip(facts["panel"] or [facts["teacher"]], taught, strict=True)
        ]
        if recipe.teacher.is_local
        else [one.subject for one in taught]
    )
    writers = [one["licence"] for one in helpers(facts)]
    asked = terms_of_writers(recipe)
    terms = [*taught, *map(of_licence, writers), *asked.values()]
    began_with = facts["student"]["licence"] if facts["student"] else facts["teacher"]["licence"]
    computed = student_licence(began_with, [*teachers, *writers, *(None for _ in asked), *data])
    return {
        "student": recipe.licence or computed.licence,
        "computed": computed.licence,
        "because": computed.why,
        "teacher": facts["teacher"]["licence"],
        "data": " / ".join(dict.fromkeys(licence or "not stated" for licence in data)) if any(data) else None,
        "measured": {
            name: licence
            for name, licence in facts["licences"].items()
            if licence and name in facts["evaluated"]
        },
        "terms": list(dict.fromkeys(one.sentence() for one in terms)),
        "accepted": recipe.teacher.terms_accepted,
    }


def teachers_terms(teacher: Any, facts: dict[str, Any]) -> list[Terms]:
    """Under what each teacher may train others: a model's licence, or what the provider of an API says."""
    if teacher.is_local:
        return [terms_of(one) for one in facts["panel"] or [facts["teacher"]]]
    return [of_past_answers(teacher.name) if teacher.provider is None else of_provider(teacher.provider)]


def _looks(results: Results) -> dict[str, Any] | None:
    """What the validation rows said during training; None where nobody asked."""
    found = {
        name: results[stage].get("early_stopping")
        for name, stage in (("student", "train"), ("hard_only", "control"))
    }
    return {name: looks for name, looks in found.items() if looks} or None


CALIBRATION = "calibration.json"
"""Beside the student, if the recipe asks for it."""

EVIDENCE = (
    *("inheritance", "groups", "disagreement", "classes"),
    *("calibration", "robustness", "counterfactual"),
)
"""The sections that `evidence.evidence` writes."""

FLOORS = {
    "causal_lm": "who knows only how frequent each token is in the training rows",
    "seq2seq": "who knows only how frequent each token is in the training targets",
    "masked_lm": "who knows only how frequent each token is in the training rows",
    "classification": "who always says the most frequent label of the training rows",
}


def _hub_id(identity: str) -> str | None:
    """ "owner/name" of a teacher from the hub; other sources have no such name."""
    return identity.removeprefix("hub:").partition("@")[0] if identity.startswith("hub:") else None


def _data(facts: dict[str, Any]) -> dict[str, Any]:
    counts = facts["counts"]
    dropped: dict[str, int] = {}
    for of_set in counts.values():
        for reason, number in of_set["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + number
    return {
        "format": counts["train"]["format"],
        "rows": {name: sizes["rows"] for name, sizes in facts["sets"].items()},
        "dropped": dropped,
        "not_looked_for": facts["not_looked_for"],
        "sets": counts,
        "coverage": facts["coverage"],
        "canaries": facts["canaries"],
        "example": facts["example"],
    }


def _answers_dropped(label: dict[str, Any]) -> dict[str, int]:
    """Reason -> training rows that were left out once the teacher was asked, for what it said or how sure it was."""
    found: dict[str, int] = label.get("dropped", {}).get("train", {})
    return found


def _what_was_told(results: Results) -> str | None:
    """How a teacher was asked, or what became of an API's log-probabilities, in a sentence; None for any other."""
    said = results["teacher"].get("asked") or results["label"].get("told") or {}
    note: str | None = said.get("note")
    return note


def stage_rows(run: Path, stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Stage -> what it took, beside what was predicted."""
    plan = run / "plan" / "plan.json"
    predicted = read_json(plan)["seconds"] if plan.exists() else {}
    return {
        name: {**took, "predicted_seconds": predicted.get(name)}
        for name, took in stage_times(run, stages).items()
    }


def publish(found: dict[str, Any], run: Path, student: Path) -> None:
    """Write results.json, report.html and the student's folder, each of them whole or not at all."""
    recipe = Recipe.model_validate(read_json(run / "recipe.json"))
    text, command = _portable(recipe_text(recipe)), f"stillhouse run {found['name']}.yaml"
    sweep_parts(run)
    curves = [row for stage in ("train", "control") for row in _curves(run / stage / "metrics.jsonl")]
    with atomic_folder(run / "student") as part:
        shutil.copytree(
            student,
            part,
            copy_function=link_or_copy,
            ignore=shutil.ignore_patterns(MANIFEST),
            dirs_exist_ok=True,
        )
        if (adapter := student.parent / "adapter").is_dir():
            shutil.copytree(adapter, part / "adapter", ignore=shutil.ignore_patterns(MANIFEST))
        if recipe.report.calibration and (mend := (found["calibration"] or {}).get("student")):
            write_json(part / CALIBRATION, {**mend, "measured_on": found["datasets"]["eval"]})
        (part / "README.md").write_text(render_card(found, text), encoding="utf-8")
    write_text(run / "report.html", render_html(found, text, command, curves))
    write_json(run / "results.json", found)


def _portable(text: str) -> str:
    """The recipe's text with paths from the working directory, not from the root of this machine."""
    return text.replace(f"{Path.cwd()}/", "")


def _curves(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def check_gate(recipe: Recipe, found: dict[str, Any]) -> None:
    """Raises: GateError that names the metric, its value and the bound; what cannot be said does not pass."""
    kept, gate, metric = found["retention"], recipe.gate, found["metric"]
    if gate.min_retention is not None:
        if kept["value"] is None or (kept.get("note") and kept["low"] is None):
            raise GateError(
                f"gate.min_retention: {kept.get('note') or 'retention was not measured'}; measure on more rows."
            )
        if kept["value"] < gate.min_retention:
            raise GateError(
                f"gate.min_retention: retention of {metric} is {kept['value']:.4f}, below {gate.min_retention}; "
                "train longer or on more data, keep more layers, or lower the gate."
            )
    if gate.min_gain is not None:
        gained = (found["gain_over_hard_only"] or {}).get("value")
        if gained is None:
            raise GateError(
                "gate.min_gain: there is no gain to judge; the objective needs a term with a teacher."
            )
        gain = gained if found["metrics"][metric]["higher_is_better"] else -gained
        if gain < gate.min_gain:
            raise GateError(
                f"gate.min_gain: the gain over the control on {metric} is {gain:.4f}, below {gate.min_gain}; "
                "see the report for where the teacher helps."
            )
    if gate.min_win_rate is not None:
        judged = ((found["judged"] or {}).get("against") or {}).get("teacher") or {}
        won = (judged.get("win_rate") or {}).get("value")
        if won is None or won < gate.min_win_rate:
            raise GateError(
                f"gate.min_win_rate: the student's win rate against its teacher "
                f"{'could not be told' if won is None else f'is {won:.4f}'}, and must be at least {gate.min_win_rate:g}; "
                "see the report for what the judge says."
            )
    if gate.max_exposure is not None:
        reached = found["memorisation"]["canaries"]["models"]["student"]["mean"]
        if reached > gate.max_exposure:
            raise GateError(
                f"gate.max_exposure: the student's mean exposure of planted secrets is {reached:.2f} bits, above "
                f"{gate.max_exposure:g}; train for fewer passes, or on more rows."
            )
    for name in gate.better_than:
        gap = found["baselines"][name]["gains"]["eval"][metric]
        if gap["better"] is not True:
            raise GateError(
                f"gate.better_than: the student is not better than {name} in {metric} beyond chance (difference "
                f"{gap['value']:.4f}, p = {gap['p']:.3f}); train longer, measure on more rows, or use {name}."
            )
