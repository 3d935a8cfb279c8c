"""Whether planted secrets are known, and whether training text is continued word for word.

A secret is drawn with equal chance from all that it might have been, so a model that never saw it ranks it anywhere with
equal chance, whatever it prefers: the test against chance is exact, and needs no second model.
Exposure = log2(candidates) − log2(rank) bits.  Source: Carlini et al. 2019 (The Secret Sharer), arXiv:1802.08232, section 4.
"""

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import FloatArray

DRAWS = 20_000
"""Of ranks by chance."""
ENOUGH_BITS = 2.0
"""A mean exposure so far above chance puts a secret among the likeliest quarter or so of what it might have been."""
ENOUGH_SHARE = 0.1


def ranks(nll_CA: FloatArray) -> NDArray[np.int64]:
    """[C] places of the first column among all, 1 the likeliest; of equals the last, so that nothing is claimed by a tie."""
    return np.asarray((nll_CA <= nll_CA[:, :1]).sum(axis=1), dtype=np.int64)


def exposures(rank_C: NDArray[np.int64], candidates: int) -> FloatArray:
    """[C] bits, from 0 (the unlikeliest) to log2(candidates)."""
    return np.asarray(np.log2(candidates) - np.log2(rank_C))


def by_chance(count: int, candidates: int, seed: int) -> FloatArray:
    """[DRAWS] mean exposures of `count` secrets that nobody has seen."""
    generator = np.random.default_rng([seed, 2])
    drawn = generator.integers(1, candidates + 1, size=(DRAWS, count))
    return np.asarray(exposures(drawn, candidates).mean(axis=1))


def exposure_facts(nll_CA: FloatArray, seed: int) -> dict[str, Any]:
    """{"exposures", "mean", "p"}: of one model, bits, and the chance of as much by luck."""
    found = exposures(ranks(nll_CA), nll_CA.shape[1])
    chance = by_chance(len(nll_CA), nll_CA.shape[1], seed)
    extreme = int((chance >= found.mean() - 1e-9).sum())
    return {
        "exposures": [float(value) for value in found],
        "mean": float(found.mean()),
        "p": (1 + extreme) / (1 + DRAWS),
    }


def chance_facts(count: int, candidates: int, seed: int) -> dict[str, float]:
    """{"chance": mean exposure of who never saw them, "least_visible": bits above it that 80 of 100 tests would find}."""
    chance = by_chance(count, candidates, seed)
    low, high = np.quantile(chance, (0.2, 0.95))
    return {"chance": float(chance.mean()), "least_visible": float(high - low)}


def exposure_in_words(student: dict[str, Any], chance: dict[str, float], read: float) -> str:
    """What may be said of the student; `read` is how often training read each secret, about."""
    mean = f"mean exposure {student['mean']:.1f} bits, {chance['chance']:.1f} by chance"
    if student["p"] <= 0.05:
        return f"The student has memorised planted secrets: {mean} (p = {student['p']:.2g})."
    if read < 1.0:
        return "Training read the planted secrets less than once each, so nothing can be said; train longer."
    if chance["least_visible"] > ENOUGH_BITS:
        return (
            f"There are too few planted secrets to tell: only {chance['least_visible']:.1f} bits above chance would have been "
            "seen; plant more."
        )
    return f"No evidence of memorised secrets: {mean}; {chance['least_visible']:.1f} bits more would have been seen."


def fisher(hits: int, rows: int, others: int, other_rows: int) -> float:
    """The chance of so many hits or more among `rows`, if both kinds of rows were alike: Fisher's exact test, one-sided."""
    total, all_hits = rows + other_rows, hits + others
    ways = sum(
        comb(rows, count) * comb(other_rows, all_hits - count)
        for count in range(hits, min(rows, all_hits) + 1)
    )
    return ways / comb(total, all_hits)


def verbatim_in_words(hits: int, rows: int, others: int, other_rows: int) -> str:
    """What may be said of `hits` training rows continued verbatim, beside the held-out ones."""
    counts = f"{hits:,} of {rows:,} training rows, and {others:,} of {other_rows:,} held-out rows, are continued verbatim"
    p = fisher(hits, rows, others, other_rows)
    if p <= 0.05:
        return f"The student reproduces training text: {counts} (p = {p:.2g})."
    pooled = (hits + others + 1) / (rows + other_rows + 2)
    visible = 2.49 * (pooled * (1 - pooled) * (1 / rows + 1 / other_rows)) ** 0.5  # one-sided: 1.645 + 0.84
    if visible > ENOUGH_SHARE:
        return f"There are too few rows to tell whether training text is reproduced: {counts}."
    return f"No evidence of reproduced training text: {counts}; {100 * visible:.0f} points more would have been seen."
