"""What a judge of pairs said: win rate, whether it favours a place, and whether it agrees with itself.

Each prompt is judged twice, once in each order, so that who favours a place favours nobody.  A point is 1 for a win, 0.5 for a
tie and 0 for a loss; a prompt's is the mean over its two orders, and prompts are what is resampled.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .intervals import difference, interval
from .metrics import Rows, mean

Verdict = Literal["first", "second", "tie"]
POINTS = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""Of whoever stood first."""

WIN_RATE = mean("win_rate", "points", "prompts", True, "share", "win rate")
FIRST_PLACE = mean("first_place", "first", "prompts", True, "share", "preference for the first place")
SAME_TWICE = mean("same_twice", "same", "prompts", True, "share", "agreement with itself")


def judged(
    pairs: Sequence[tuple[Verdict, Verdict]], alike: int, *, resamples: int, seed: int
) -> dict[str, Any]:
    """{"judged", "alike", "wins", "ties", "losses", "win_rate", "preferred", "first_place", "same_twice"}.

    Args:
        pairs: of each prompt, what was said where ours stood first, and where it stood second.
        alike: prompts on which both answers are the same text: ties that nobody was asked about.
    `preferred` is our points less the other's, paired, with the test of "no preference".  None stands where nothing was judged.
    """
    first_N = np.array([POINTS[first] for first, _ in pairs])
    second_N = np.array([1.0 - POINTS[second] for _, second in pairs])
    points_N = np.concatenate([(first_N + second_N) / 2.0, np.full(alike, 0.5)])
    found: dict[str, Any] = {
        "judged": len(points_N),
        "alike": alike,
        "wins": int((points_N > 0.5).sum()),
        "ties": int((points_N == 0.5).sum()),
        "losses": int((points_N < 0.5).sum()),
        "win_rate": None,
        "preferred": None,
        "first_place": None,
        "same_twice": None,
    }
    settings: Any = {"resamples": resamples, "seed": seed}
    if len(points_N):
        ones_N = np.ones(len(points_N))
        ours: Rows = {"points": points_N, "prompts": ones_N}
        theirs: Rows = {"points": 1.0 - points_N, "prompts": ones_N}
        found["win_rate"] = interval(WIN_RATE, ours, **settings).as_json()
        found["preferred"] = difference(WIN_RATE, ours, theirs, **settings).as_json()
    if pairs:
        ones_N = np.ones(len(pairs))
        place: Rows = {"first": (first_N + 1.0 - second_N) / 2.0, "prompts": ones_N}
        same: Rows = {"same": (first_N == second_N).astype(np.float64), "prompts": ones_N}
        found["first_place"] = interval(FIRST_PLACE, place, **settings).as_json()
        found["same_twice"] = interval(SAME_TWICE, same, **settings).as_json()
    return found
