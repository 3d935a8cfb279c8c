"""The same rows read twice: clean and changed.  How much a model loses, and whether the student loses more."""

from typing import Any

import numpy as np

from ..errors import DataError
from .groups import GAP
from .intervals import difference, interval
from .metrics import Metric, Rows, bits_per_byte, mean

FLIPS = mean("flips", "flips", "texts", False, "share", "answers that change with the term")
MOVED = mean("moved", "moved", "pairs", False, "bits", "difference that a term makes, bits per byte")
"""How much likelier or less likely a language model finds the same answer, or the text, after a swap: without its sign, for
terms are swapped both ways."""


def same_answers(clean: Rows, changed: Rows) -> "np.ndarray[Any, Any]":
    """[N] whether both sides count the same bytes: not where a longer prompt has left less room for the answer."""
    if "bytes" not in clean:
        return np.ones(len(clean["texts"]), dtype=bool)
    return np.asarray((clean["bytes"] == changed["bytes"]) & (clean["bytes"] > 0))


def shift_rows(clean: Rows, changed: Rows, metric: Metric) -> Rows:
    """The statistics of metric(changed) − metric(clean), for a metric that is a ratio of two columns."""
    part, whole = metric.columns
    return {
        "part_in": changed[part], "whole_in": changed[whole], "part_out": clean[part], "whole_out": clean[whole],
    }  # fmt: skip


def shift_facts(models: dict[str, Rows], *, resamples: int, seed: int) -> dict[str, Any]:
    """{"models": name -> interval of what the change does to it; "extra": student − teacher, paired}."""
    settings: Any = {"resamples": resamples, "seed": seed}
    return {
        "models": {name: interval(GAP, rows, **settings).as_json() for name, rows in models.items()},
        "extra": difference(GAP, models["student"], models["teacher"], **settings).as_json(),
    }


def moved_rows(clean: Rows, changed: Rows) -> Rows:
    """|bits per byte of the swapped row − bits per byte of the row| of a language model, row by row.

    A row of which no byte is counted on one of the sides says nothing, and is no pair.
    """
    before, after = bits_per_byte(clean), bits_per_byte(changed)
    apart = np.abs(after - before)
    known = np.isfinite(apart)
    return {"moved": np.where(known, apart, 0.0), "pairs": known.astype(np.float64)}


def flip_rows(clean: Rows, changed: Rows) -> Rows:
    """Whether a classifier's answer is another one.  Raises: DataError if the two are not the same rows."""
    if len(clean["pred"]) != len(changed["pred"]):
        raise DataError("the swapped rows are not the rows they were made from; run the recipe again.")
    apart = (clean["pred"] != changed["pred"]).any(axis=1)
    return {"flips": apart.astype(np.float64), "texts": np.ones(len(apart))}
