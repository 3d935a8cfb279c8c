"""What a plan showed, in plain sentences: first the comparison that it was made for, lost or won."""

from collections.abc import Mapping
from typing import Any

from .numbers import MISSING, in_words, known, number, percent, with_interval
from .table import Results, metric_title
from .verdict import cannot_be_said

KINDS = {
    "sweep": "Sweep", "ablation": "Ablation", "assistants": "Teacher assistants", "generations": "Born-again generations",
    "phases": "Phases", "tasks": "One student, several tasks", "rounds": "Rounds", "chain": "Chain", "tuning": "Tuning",
}  # fmt: skip


def plan_verdict(found: Results) -> list[str]:
    """Sentences, the most important first."""
    said = [_sentence(found, gap) for gap in found["comparisons"]]
    if found["plan"] == "sweep":
        said = [_best(found), *said]
    return [*said, *_tuning(found), *_rounds(found)] or [_best(found)]


def _sentence(found: Results, gap: Mapping[str, Any]) -> str:
    """One comparison."""
    metric, one, other = metric_title(found, gap["metric"]), gap["of"], gap["against"]
    if gap.get("on", "eval") != "eval":
        metric += f" on {gap['on']}"
    if not known(gap.get("value")):
        return f"{one} against {other}: {gap.get('note') or 'cannot be compared.'}"
    up = _up(found, gap["metric"])
    unit = (found["metrics"].get(gap["metric"]) or {}).get("unit") or ""
    metric += f" ({unit})" if unit and unit != "share" else ""
    over = f" over {gap['seeds']} seeds" if gap.get("seeds", 1) > 1 else ""
    if gap.get("better") is None:
        size = with_interval(gap, 1.0 if up else -1.0)
        if gap.get("low") is None and gap.get("note"):
            return f"{one} differs from {other} in {metric} by a gain of {size}{over}; {str(gap['note']).rstrip('.')}."
        return f"{one} and {other} cannot be told apart in {metric}: a gain of {size}{over}."
    size = with_interval(gap, 1.0 if up == gap["better"] else -1.0)
    return f"{one} is {'better' if gap['better'] else 'worse'} than {other} in {metric} by {size}{over}."


def _best(found: Results) -> str:
    """The best of all, where all were measured on the same rows; plans of older versions do not say."""
    rows = [row for row in found["runs"] if known(row["quality"].get("value"))]
    if not rows:
        return "Nothing was measured."
    if not found.get("same_rows", True):
        return f"None of {len(rows)} can be called the best: they were not all measured on the same held-out rows."
    best = (max if rows[0]["higher_is_better"] else min)(rows, key=lambda row: row["quality"]["value"])
    metric = metric_title(found, best["metric"])
    return f"The best of {len(rows)} in {metric}: {best['name']}, {with_interval(best['quality'])}."


def _tuning(found: Results) -> list[str]:
    tuned = found.get("tuning")
    if not tuned:
        return []
    said = [
        f"{tuned['done']} trials were judged on {tuned['rows']:,} rows set aside from training"
        + (f", {tuned['pruned']} of them ended early or could not be compared" if tuned["pruned"] else "")
        + "; the held-out rows were read once, at the end."
    ]
    if tuned.get("importance"):
        shares = [
            f"{name} ({number(100 * share, 0)} %)" for name, share in list(tuned["importance"].items())[:3]
        ]
        said.append(f"What mattered most: {in_words(shares)}.")
    return said


def _rounds(found: Results) -> list[str]:
    rounds = found.get("rounds")
    if not rounds:
        return []
    said = [
        f"Round {row['round']}, {row['rows']:,} rows of the pool: {row['title']} {with_interval(row['after'])}, "
        f"before it {number(row['before']['value'])}, with rows at random {number(row['at_random']['value'])}."
        for row in rounds["history"]
    ]
    return [*said, rounds["why"]]


def kept_unknown(found: Results) -> list[str]:
    """Why runs have no retention, one sentence a reason."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in found["runs"]:
        share = row.get("retention")
        if share is None or percent(share) == MISSING:
            together.setdefault((row["metric"], _unknown(row, share)), []).append(row["name"])
    said = []
    for (metric, why), names in together.items():
        who = "the students keep" if len(names) == len(found["runs"]) else f"{in_words(names)} keep"
        if len(names) == 1:
            who = f"{names[0]} keeps"
        said.append(cannot_be_said(metric_title(found, metric), who, why))
    return said


def _unknown(row: Mapping[str, Any], share: Mapping[str, Any] | None) -> str:
    """Why a row has no retention."""
    if share is not None:
        return str(share.get("note") or "it was not measured")
    if row["quality"].get("seeds", 1) > 1:
        return "it is measured of one seed at a time, and stands in the report of each run"
    return "it was not measured" if row["runs"] else "it is not measured of averaged students"


def _up(found: Results, metric: str) -> bool:
    """Which way a metric points, also one of another task's."""
    known_here = found["metrics"].get(metric)
    if known_here:
        return bool(known_here["higher_is_better"])
    return next((bool(row["higher_is_better"]) for row in found["runs"] if row["metric"] == metric), True)
