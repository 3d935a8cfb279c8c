"""Do 95 % intervals hold the truth in 95 % of data sets, and does the paired test cry wolf in 5 %?

    python benchmarks/intervals.py [--sets 1000] [--rows 1000] [--resamples 1000]

Each line draws so many data sets from a population whose truth is known (or measured on a million rows) and asks the
product's own functions; once more with a fifth of the rows.  Alarms are counted over six times as many sets: of 1,000 their share is
known to within 1.4 points, which is more than what is looked for.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments

from stillhouse.measure import CLASSIFICATION_METRICS, LM_METRICS, difference, evaluate, interval, retention

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from populations import alike, judges, texts, windows

ACCURACY, F1 = CLASSIFICATION_METRICS["accuracy"], CLASSIFICATION_METRICS["macro_f1"]
PERPLEXITY = LM_METRICS["perplexity"]
ALARMS = 6
"""Times as many sets for what is so rare."""
Draw = Callable[[np.random.Generator, dict[str, Any]], Any]
"""(where chance comes from, resamples and seed) -> what the product says."""


def intervals(rows: int) -> dict[str, tuple[float, Draw]]:
    """What is measured -> (the truth, one data set's interval)."""
    many = np.random.default_rng(0)
    f1 = evaluate(F1, texts(many, 1_000_000))
    perplexity = evaluate(PERPLEXITY, windows(many, 1_000_000, 2.0))
    return {
        "accuracy": (0.8, lambda g, k: interval(ACCURACY, *judges(g, rows, 0.8), **k)),
        "macro F1": (f1, lambda g, k: interval(F1, texts(g, rows), **k)),
        "perplexity": (perplexity, lambda g, k: interval(PERPLEXITY, windows(g, rows, 2.0), **k)),
        "retention": (4 / 4.5, lambda g, k: retention(ACCURACY, *judges(g, rows, 0.8, 0.85, 0.4), **k)),
        "accuracy's difference": (
            0.05,
            lambda g, k: difference(ACCURACY, *judges(g, rows, 0.85, 0.8), **k),
        ),
        "perplexity's difference": (0.0, lambda g, k: difference(PERPLEXITY, *alike(g, rows), **k)),
    }


def tests(rows: int) -> dict[str, Draw]:
    """What two models are alike in -> the test on one data set."""
    return {
        "accuracy": lambda g, k: difference(ACCURACY, *judges(g, rows, 0.8, 0.8), **k),
        "perplexity": lambda g, k: difference(PERPLEXITY, *alike(g, rows), **k),
    }


def main() -> None:
    """The table."""
    asked = arguments(__doc__ or "", sets=1000, rows=1000, resamples=1000)

    def drawn(draw: Draw, salt: int, sets: int) -> list[Any]:
        seeds = range(sets)
        return [
            draw(np.random.default_rng([salt, s]), {"resamples": asked.resamples, "seed": s}) for s in seeds
        ]

    for rows in (asked.rows, asked.rows // 5):
        for name, (truth, draw) in intervals(rows).items():
            held = np.mean(
                [one.low - 1e-9 <= truth <= one.high + 1e-9 for one in drawn(draw, 99, asked.sets)]
            )
            print(f"{rows} rows, {name}: the interval holds the truth in {100 * held:.1f} %", flush=True)
        for name, draw in tests(rows).items():
            found = drawn(draw, 7, ALARMS * asked.sets)
            alarms = np.mean([one.p <= 0.05 for one in found])
            claims = np.mean([one.better is not None for one in found])
            print(
                f"{rows} rows, alike in {name}: p ≤ 0.05 in {100 * alarms:.1f} %, claimed in {100 * claims:.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
