"""The honest first line: what the student kept, and whether the teacher was any help.

Every claim about the teacher's help is made against the control, a student trained on hard targets alone.  Gains in
results.json are student − control in the metric's own unit; `better` is true or false where the difference is beyond
chance, and null where it is not.
"""

from collections.abc import Iterator
from typing import Any

from ..held_out import MADE
from .numbers import count, in_words, known, number, percent, with_interval
from .table import Results, dataset_names, higher_is_better, metric_names, metric_title


def gains(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(metric, data set, gain) of every comparison with the control, headline metric and `eval` first."""
    found = results.get("gains") or {}
    for dataset in dataset_names(results):
        for metric in metric_names(results):
            gain = (found.get(dataset) or {}).get(metric)
            if gain and known(gain.get("value")):
                yield metric, dataset, gain


def headline_gain(results: Results) -> dict[str, Any] | None:
    """The gain over the control in the headline metric on `eval`; None without a control."""
    gain: dict[str, Any] | None = results.get("gain_over_hard_only")
    return gain if gain and known(gain.get("value")) else None


def speed_ratio(results: Results) -> tuple[str, float] | None:
    """(what for, student ÷ teacher) of the throughput that users feel, or None if it was not measured."""
    teacher, student = (results[who].get("throughput") or {} for who in ("teacher", "student"))
    for key, word in (("generate", "generation speed"), ("rows", "speed"), ("prefill", "reading speed")):
        if known(teacher.get(key)) and known(student.get(key)) and teacher[key] > 0:
            return word, student[key] / teacher[key]
    return None


def _cost(results: Results) -> str:
    """'at 60 % of its parameters and 1.9× its generation speed'."""
    parts = []
    sizes = [results[who].get("parameters") for who in ("student", "teacher")]
    if all(known(each) and each > 0 for each in sizes):
        share = 100 * sizes[0] / sizes[1]
        parts.append(f"{number(share, 0 if share >= 1.5 else 1)} % of its parameters")
    speed = speed_ratio(results)
    if speed:
        parts.append(f"{number(speed[1], 1 if speed[1] < 9.95 else 0)}× its {speed[0]}")
    return f" at {in_words(parts)}" if parts else ""


def cannot_be_said(metric: str, who_keeps: str, why: str) -> str:
    """Why there is no retention."""
    return f"How much of the teacher's {metric} {who_keeps} cannot be said: {why.rstrip('.')}."


def _kept(results: Results) -> str:
    """What the student keeps of the teacher, and at what cost."""
    share = results.get("retention") or {}
    metric = metric_title(results, results["metric"])
    if not known(share.get("value")) or (share.get("note") and not known(share.get("low"))):
        why = share.get("note") or "it was not measured"
        return cannot_be_said(metric, "the student keeps", why)
    return f"The student keeps {percent(share)} of what the teacher knows in {metric}{_cost(results)}."


def _places(results: Results, better: bool | None, skip_headline: bool = False) -> str:
    """'teacher agreement and teacher KL (eval) and perplexity (year_2889)': where the gain is better, worse or neither.

    Metrics that share their data sets are named together; with one data set in all, it is not named.
    """
    where: dict[str, list[str]] = {}
    for metric, dataset, gain in gains(results):
        if skip_headline and metric == results["metric"] and dataset == "eval":
            continue
        if gain.get("better") is better:
            where.setdefault(metric, []).append(dataset)
    together: dict[str, list[str]] = {}
    for metric, datasets in where.items():
        together.setdefault(in_words(datasets), []).append(metric_title(results, metric))
    alone = len(dataset_names(results)) == 1
    return in_words([in_words(titles) + ("" if alone else f" ({sets})") for sets, titles in together.items()])


def _rows(results: Results, dataset: str = "eval") -> str:
    """'64 rows', or 'these rows' if nobody counted them."""
    rows = ((results.get("datasets") or {}).get(dataset) or {}).get("rows")
    return "these rows" if rows is None else f"{rows:,} row{'' if rows == 1 else 's'}"


def _worse_by(results: Results, metric: str, gain: dict[str, Any]) -> str:
    """'0.031 [0.012, 0.05] bits': the size of a loss, as a positive number."""
    unit = (results["metrics"].get(metric) or {}).get("unit") or ""
    return f"{with_interval(gain, -1.0 if higher_is_better(results, metric) else 1.0)} {unit}".rstrip()


def _beaten(results: Results) -> str:
    """The sentence on the control, where the headline metric beats it."""
    text = f"Distillation beats the hard-targets-only control on {_places(results, True) or 'eval'}"
    worse, level = _places(results, False), _places(results, None)
    if worse:
        text += f"; it is worse on {worse}"
    if level:
        text += f"; on {level} it makes no difference that the rows can show"
    return text + "."


def _by_seed(results: Results) -> str:
    """A sentence where other seeds gave another winner."""
    gain = (results.get("seeds") or {}).get("gain")
    if not gain or not gain["low"] < 0 < gain["high"]:
        return ""
    return f" But over {results['seeds']['count']} seeds the better one of the two changes with the seed."


def _not_beaten(results: Results, gain: dict[str, Any]) -> tuple[str, str]:
    """(the sentence on the headline metric, the one on everything else), where the headline metric does not beat it."""
    metric = results["metric"]
    text = f"Distillation did not beat plain fine-tuning on {metric_title(results, metric)}: "
    if gain.get("better") is False:
        text += (
            f"the student is worse than the hard-targets-only control by {_worse_by(results, metric, gain)}."
        )
    else:
        text += (
            f"against the hard-targets-only control it makes no difference that {_rows(results)} can show."
        )
    where, worse = _places(results, True), _places(results, False, skip_headline=True)
    if where:
        return text, f"It did beat it on {where}" + (f", and was worse on {worse}." if worse else ".")
    return text, f"It was worse on {worse} too, and beat it nowhere." if worse else "It beat it nowhere."


def verdict_parts(results: Results) -> tuple[str, str]:
    """(what is said first, the rest): each one or two sentences."""
    gain = headline_gain(results)
    if gain is None:
        nothing = (
            "No control was trained on hard targets alone, so nothing is claimed about the teacher's help."
        )
        return _kept(results), nothing
    if gain.get("better") is True:
        return _kept(results), _beaten(results) + _by_seed(results)
    first, elsewhere = _not_beaten(results, gain)
    return first, f"{elsewhere} {_kept(results)}"


def verdict(results: Results) -> str:
    """Two or three plain sentences, the honest first line of report, card and terminal.

    A student that is not better than its control on the headline metric is told so in the first sentence.
    """
    return " ".join(verdict_parts(results))


def failed_claims(results: Results) -> list[str]:
    """What one would like to claim of this run and cannot, one sentence each."""
    return [
        *_against_control(results),
        *_against_floor(results),
        *_against_before(results),
        *_elsewhere(results),
        *_against_cost(results),
        *_unknown_behind_an_api(results),
    ]


def _against_control(results: Results) -> Iterator[str]:
    for metric, dataset, gain in gains(results):
        about = f"{metric_title(results, metric)} ({dataset})"
        if gain.get("better") is False:
            yield f"{about}: worse than the hard-targets-only control by {_worse_by(results, metric, gain)}."
        elif gain.get("better") is None:
            yield f"{about}: no difference from the control that {_rows(results, dataset)} can show."


def _against_floor(results: Results) -> Iterator[str]:
    for dataset, share in (results.get("retentions") or {}).items():
        bound = share.get("value") if share.get("low") is None else share["low"]
        if known(bound) and bound <= 0:
            yield f"{metric_title(results, results['metric'])} ({dataset}): not shown to be better than the floor."


def _against_before(results: Results) -> Iterator[str]:
    before = ((results.get("controls") or {}).get("initial") or {}).get("metrics") or {}
    metric = results["metric"]
    sign = 1 if higher_is_better(results, metric) else -1
    for dataset in dataset_names(results):
        old = ((before.get(dataset) or {}).get(metric) or {}).get("value")
        new = ((results["student"]["metrics"].get(dataset) or {}).get(metric) or {}).get("value")
        if old is not None and new is not None and sign * (new - old) <= 0:
            yield f"{metric_title(results, metric)} ({dataset}): training did not improve on the student before."


def _elsewhere(results: Results) -> Iterator[str]:
    if set(dataset_names(results)) <= {"eval", *MADE}:
        yield (
            "Other domains: nothing was measured beyond the held-out rows of the source; name another data set in evaluate.also."
        )


def _against_cost(results: Results) -> Iterator[str]:
    student, teacher = (results[who].get("parameters") for who in ("student", "teacher"))
    if known(student) and known(teacher) and student >= teacher:
        yield f"Size: {count(student)} parameters are not fewer than the teacher's {count(teacher)}."
    speed = speed_ratio(results)
    if speed and speed[1] <= 1:
        yield f"Speed: {number(speed[1])}× the teacher's {speed[0]} is not faster."


def _unknown_behind_an_api(results: Results) -> Iterator[str]:
    if results.get("said") is None:
        if results["teacher"].get("panel") and "parameters" not in results["teacher"]:
            yield (
                "The teacher's size, speed and memory: not known, for a member of its panel has another tokenizer and read the "
                "rows beforehand."
            )
        return
    of_it = "a member of its panel" if results["teacher"].get("panel") else "it"
    yield f"The teacher's size, speed and memory: not known, for {of_it} is behind an API."
    known_of_it = {metric for found in results["teacher"]["metrics"].values() for metric in found}
    hidden = [metric_title(results, metric) for metric in metric_names(results) if metric not in known_of_it]
    if hidden:
        yield f"The teacher's {in_words(hidden)}: not known, for behind an API it gave no probabilities for them."
