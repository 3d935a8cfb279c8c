"""Of several answers to one question the one that stays: what most agree on, or what scores best.

Everything gives (number of the answer that stays, "") or (None, why none does); an answer that is None was cut off, and
counts among those that were asked for.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from ..errors import DataError
from ..registry import load
from .formats import Row
from .written import answered, final_answer

Choice = tuple[int | None, str]
Texts = Sequence[str | None]
CUT = "all answers are cut off or empty"


def vote(texts: Texts, least: float, key: Callable[[str], str] = final_answer) -> Choice:
    """The first answer whose `key` most have, if at least the share `least` of those asked for have it, and no other as many.

    Source: Wang et al. 2022 (self-consistency), arXiv:2203.11171.
    """
    keys = [None if text is None or not text.strip() else key(text) for text in texts]
    counts = Counter(one for one in keys if one is not None).most_common(2)
    if not counts:
        return None, CUT
    (first, most), others = counts[0], counts[1:]
    if most < least * len(texts):
        return None, "samples disagree"
    if others and others[0][1] == most:
        return None, "samples tie"
    return keys.index(first), ""


def best(scores: Sequence[float | None], least: float, reason: str) -> Choice:
    """The first of the highest score, if that is more than `least`; None is no score.  `reason`: why there is none."""
    known = [score for score in scores if score is not None]
    if not known:
        return None, CUT
    return (scores.index(max(known)), "") if max(known) > least else (None, reason)


def key_of(target: str | None) -> Callable[[str], str]:
    """What answers are compared by: `final_answer`, or the user's function; what that raises is said with the answer."""
    if target is None:
        return final_answer
    function = load(target)

    def key(text: str) -> str:
        try:
            return str(function(text))
        except Exception as error:  # somebody else's code
            raise DataError(
                f"{target} raised {type(error).__name__}: {error}, on the answer {text[:80]!r}."
            ) from error

    return key


def checked_by(target: str) -> Callable[[Row, str | None], float | None]:
    """(question, answer) -> the score that the user's function gives the row with that answer: a number, or True and False
    for 1 and 0; a reason (text) is 0."""
    function = load(target)

    def score(row: Row, text: str | None) -> float | None:
        whole = "" if text is None else answered(row, text)
        if isinstance(whole, str):
            return None
        try:
            said = function(dict(whole))
        except Exception as error:  # somebody else's code
            raise DataError(f"{row['where']}: {target} raised {type(error).__name__}: {error}.") from error
        if isinstance(said, str):
            return 0.0
        if not isinstance(said, bool | int | float):
            raise DataError(
                f"{row['where']}: {target} returned {type(said).__name__}; it must return True, False, a number or a reason "
                "(text)."
            )
        return float(said)

    return score
