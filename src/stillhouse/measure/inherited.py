"""The teacher's errors that came through: how many the student repeats, and which words go with them.

A student that is wrong where its teacher is wrong has not inherited that for certain: hard rows are hard for everybody.
The control, trained on the same rows without the teacher, says how many of these errors it would make anyway.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import Difference
from .metrics import mean
from .multiple import holm, least_visible

REPEATED = mean("repeated_errors", "repeats", "teacher_wrong", False, "share", "teacher's errors repeated")
"""Of the teacher's errors, the share on which a model gives the same wrong answer."""
VISIBLE = 0.1
"""A difference of shares that one would want to see; a test that could not is no evidence of anything."""
FEWEST_WORD_ROWS = 10
WORD = re.compile(r"\w[\w'’-]*")


def inheritance_in_words(errors: int, excess: Difference) -> str:
    """One sentence on `REPEATED` of the student less that of the control, over `errors` errors of the teacher."""
    seen = least_visible(excess.low, excess.high)
    if excess.value is None or errors == 0:
        return "The teacher made no error on these rows, so none could be inherited."
    if excess.better is False:
        return (
            f"The student repeats {100 * excess.value:.0f} % more of the teacher's {errors:,} errors than the control, "
            f"which never saw the teacher: they are inherited ({_chance(excess.p)})."
        )
    if excess.better is True:
        return f"The student repeats fewer of the teacher's {errors:,} errors than the control ({_chance(excess.p)})."
    if seen is not None and seen <= VISIBLE and (excess.high or 0.0) > VISIBLE:
        return (
            f"The student is not shown to repeat more of the teacher's {errors:,} errors than the control "
            f"({100 * excess.value:+.0f} %, 95 % interval {100 * (excess.low or 0.0):+.0f} to {100 * (excess.high or 0.0):+.0f} %)."
        )
    if seen is not None and seen <= VISIBLE:
        return (
            f"There is no evidence of inherited errors: of the teacher's {errors:,} the student is not shown to repeat "
            f"more than the control, and {100 * seen:.0f} % more would have been seen."
        )
    least = "" if seen is None else f"; only {100 * seen:.0f} % or more would show"
    return f"The teacher's {errors:,} errors are too few to tell whether the student inherited any{least}."


def _chance(p: float | None) -> str:
    """ "p = 0.012"; no p is 0."""
    return "p not known" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def words_of_errors(
    texts: Sequence[str], errors: "np.ndarray[Any, Any]", most: int = 5, level: float = 0.001
) -> list[dict[str, Any]]:
    """Words that are in more of the `errors` [N] (bool) than chance explains: a rule that the errors may follow.

    For each word in at least 10 rows and at most half of them, the exact probability that as many of the errors hold
    it if errors fell on any rows (hypergeometric); those stay that all words together leave at `level` (Holm).
    Returns: {"word", "rows", "errors", "expected", "p_holm"}, the strongest first.
    """
    total, wrong = len(texts), int(errors.sum())
    places: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for word in sorted({word.casefold() for word in WORD.findall(text)}):
            places.setdefault(word, []).append(number)
    usual = {
        word: at for word, at in places.items() if FEWEST_WORD_ROWS <= len(at) <= total / 2 and wrong > 0
    }
    hits = {word: int(errors[at].sum()) for word, at in usual.items()}
    adjusted = holm([upper_tail(hits[word], total, wrong, len(at)) for word, at in usual.items()])
    found: list[dict[str, Any]] = [
        {
            "word": word,
            "rows": len(at),
            "errors": hits[word],
            "expected": wrong * len(at) / total,
            "p_holm": p,
        }
        for (word, at), p in zip(usual.items(), adjusted, strict=True)
        if p <= level
    ]
    return sorted(found, key=lambda one: (one["p_holm"], -one["errors"]))[:most]


def upper_tail(hits: int, total: int, marked: int, drawn: int) -> float:
    """P(at least `hits` of `drawn` are marked), drawing without replacement from `total` of which `marked` are."""

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    least, most = max(hits, drawn - (total - marked), 0), min(drawn, marked)
    whole = log_choose(total, drawn)
    terms = [
        log_choose(marked, k) + log_choose(total - marked, drawn - k) - whole for k in range(least, most + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))
