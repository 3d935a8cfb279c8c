"""The four or five numbers that a person wants first, each with what it means: strings only."""

from collections.abc import Iterator
from dataclasses import dataclass

from .numbers import count, known, number, percent, with_interval
from .table import Results, at_batch, higher_is_better, metric_title
from .verdict import headline_gain, speed_ratio


@dataclass(frozen=True)
class Figure:
    """A number, what it is, what stands behind it; `share` (0 to 1) is drawn as a bar."""

    value: str
    what: str
    behind: str
    share: float | None = None


def figures(results: Results) -> list[Figure]:
    """Those that were measured."""
    return [*_kept(results), *_help(results), *_agreement(results), *_size(results), *_speed(results)]


def _kept(results: Results) -> Iterator[Figure]:
    kept = results.get("retention") or {}
    if known(kept.get("value")) and not (kept.get("note") and not known(kept.get("low"))):
        value, _, interval = percent(kept).partition(" (")
        behind = f"of the teacher's {metric_title(results, results['metric'])} above the floor"
        behind += f" ({interval}" if interval else ""
        yield Figure(value, "kept", behind, min(1.0, max(0.0, float(kept["value"]))))


def _help(results: Results) -> Iterator[Figure]:
    gain = headline_gain(results)
    if gain is None:
        return
    sign = 1.0 if higher_is_better(results, results["metric"]) else -1.0
    word = {True: "better", False: "worse", None: "no clear difference"}[gain.get("better")]
    value, _, interval = with_interval(gain, sign).partition(" [")
    behind = f"in {metric_title(results, results['metric'])} than the same student without a teacher"
    if gain.get("better") is None:
        behind = f"in {metric_title(results, results['metric'])} from the same student without a teacher"
    shown = value if value.startswith("−") or not float(gain["value"]) else f"+{value}"
    yield Figure(shown, word, behind + (f" [{interval}" if interval else ""))


def _agreement(results: Results) -> Iterator[Figure]:
    found = (results["student"]["metrics"].get("eval") or {}).get("teacher_agreement") or {}
    if known(found.get("value")):
        value, _, interval = percent(found).partition(" (")
        behind = "the teacher's first choice" + (f" ({interval}" if interval else "")
        yield Figure(value, "say the same", behind, float(found["value"]))


def _size(results: Results) -> Iterator[Figure]:
    student, teacher = (results[who].get("parameters") for who in ("student", "teacher"))
    if known(student) and known(teacher) and teacher > 0:
        share = 100 * student / teacher
        value = f"{number(share, 0 if share >= 1.5 else 1)} %"
        yield Figure(
            value, "of the size", f"{count(student)} of {count(teacher)} parameters", min(1.0, share / 100)
        )


def _speed(results: Results) -> Iterator[Figure]:
    ratio = speed_ratio(results)
    if ratio is not None:
        word, times = ratio
        key = {"generation speed": "generate", "speed": "rows", "reading speed": "prefill"}[word]
        mine, theirs = (results[who]["throughput"] for who in ("student", "teacher"))
        behind = f"{number(mine[key])} against {number(theirs[key])} {mine.get('unit') or 'a second'}"
        behind += at_batch(mine, key)
        yield Figure(f"{number(times, 1 if times < 9.95 else 0)}×", f"the {word}", behind)
