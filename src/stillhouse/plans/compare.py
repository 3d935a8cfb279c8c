"""Differences between runs on the same held-out rows, over several seeds.  numpy only, by way of `measure`.

With one seed the interval is the paired one over rows.  With several, two things vary: the rows (bootstrap, the mean of
the seeds' half-widths: they read the same rows, so this does not shrink with more seeds) and the seed (Student's t over
the seeds' values).  Their half-widths are added in squares; as part of the rows' luck is in both, this is on the safe side.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..files import hash_json, read_json
from ..kept import index_path, read_index, read_rows, rows_path
from ..measure import Metric, Rows, difference, interval
from ..pipeline import DONE

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t for a two-sided 95 % interval, 1 to 10 degrees of freedom."""
OTHER_ROWS = "they were not measured on the same held-out rows, so there is no paired interval."
Found = dict[str, Any]


def student_rows(run: Path, model: str = "student", kind: str = "eval") -> Rows:
    """Per-row statistics of a finished run's model."""
    return read_rows(rows_path(run / "evaluate", model, kind))


def has_rows(run: Path, model: str, kind: str = "eval") -> bool:
    """Whether a finished run has measured that model."""
    return rows_path(run / "evaluate", model, kind).exists()


def content_of(run: Path, kind: str = "eval") -> str:
    """What tells one set of held-out rows, as they were measured, from another: a teacher may have given them their answers."""
    if not index_path(run, kind).exists():  # of an older run, which has its own way to say what was prepared
        return str(read_json(run / "prepare" / DONE)["result"]["sets"][kind]["content"])
    index = read_index(run, kind)
    return hash_json([index.keys, index.labels])


def value_over_seeds(metric: Metric, rows: Sequence[Rows], resamples: int, seed: int) -> Found:
    """{value, low, high, seeds, spread} of the mean over seeds; `spread` is the standard deviation between them."""
    found = [interval(metric, one, resamples=resamples, seed=seed).as_json() for one in rows]
    return _joined(found)


def difference_over_seeds(
    metric: Metric, ours: Sequence[Rows], theirs: Sequence[Rows], resamples: int, seed: int
) -> Found:
    """{value, low, high, p, better, seeds, spread} of ours − theirs, pair by pair; `p` only with one seed."""
    pairs = zip(ours, theirs, strict=True)
    found = [difference(metric, a, b, resamples=resamples, seed=seed).as_json() for a, b in pairs]
    if len(found) == 1:
        return {**found[0], "seeds": 1, "spread": None}
    joined = {**_joined(found), "p": None, "better": None}
    low, high = joined["low"], joined["high"]
    if low is not None and high is not None and (low > 0 or high < 0):
        joined["better"] = (low > 0) == metric.higher_is_better
    return joined


def unpaired(metric: Metric, ours: Found, theirs: Found) -> Found:
    """The difference of two values that stand on different rows: a number without a claim."""
    values = (ours["value"], theirs["value"])
    value = None if None in values else values[0] - values[1]
    return {"value": value, "low": None, "high": None, "p": None, "better": None, "note": OTHER_ROWS, "seeds": 1, "spread": None}  # fmt: skip


def _joined(found: Sequence[Found]) -> Found:
    values = [one["value"] for one in found]
    if len(found) == 1 or None in values:
        return {**found[0], "seeds": len(found), "spread": None}
    value, spread = mean(values), stdev(values)
    halves = [(one["high"] - one["low"]) / 2 for one in found if None not in (one["low"], one["high"])]
    over_rows = mean(halves) if halves else 0.0
    half = math.hypot(over_rows, t95(len(values) - 1) * spread / math.sqrt(len(values)))
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "note": None,
        "seeds": len(values),
        "spread": spread,
    }


def t95(freedom: int) -> float:
    """Student's t; above 10 degrees of freedom, Cornish and Fisher's first correction of the normal quantile."""
    return T95[freedom - 1] if freedom <= len(T95) else 1.96 + 2.372 / freedom + 2.82 / freedom**2
