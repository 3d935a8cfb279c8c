"""Bounds on what a finished run has measured, for CI: each is one row with its value, its bound and whether it holds.

What could not be measured does not pass: a gate that is open where nobody looked is none.  Imports no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .compare import compare
from .errors import GateError, RecipeError
from .files import read_json
from .finished import read_results
from .registry import did_you_mean


@dataclass(frozen=True)
class Bounds:
    """What is demanded; None is not."""

    min_retention: float | None = None
    min_gain: float | None = None
    """Over the hard-targets control on the headline metric, turned so that more is better."""
    max_ece: float | None = None
    group_gap_growth: float | None = None
    """Most that any group's gap may be larger in the student than in the teacher."""
    at_least: Mapping[str, float] | None = None
    """Metric, or "task:metric" of the harness -> lowest value of the student."""
    at_most: Mapping[str, float] | None = None
    """The same -> highest value of the student."""
    not_worse_than: Path | None = None
    """A run whose student must not be surely better on the headline metric, on the same rows."""
    min_win_rate: float | None = None
    """Lowest win rate against the teacher, by the run's judge."""
    max_exposure: float | None = None
    """Highest mean exposure of planted secrets in the student, in bits."""
    better_than: Sequence[str] = ()
    """Baselines that the student must beat on the headline metric, beyond chance."""
    sure: bool = False
    """Judge by the end of the 95 % interval that is the worse one, not by the value."""


@dataclass(frozen=True)
class Row:
    """One bound and what was found."""

    what: str
    value: float | None
    bound: str
    ok: bool
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """'retention on eval is 0.9412, and must be at least 0.97'."""
        if self.value is None:
            return f"{self.what}: {self.note or 'was not measured'}"
        return f"{self.what} is {self.value:.4f}, and must be {self.bound}" + (
            f" ({self.note})" if self.note else ""
        )


def check(run: Path, bounds: Bounds, dataset: str = "eval") -> list[Row]:
    """Every bound as a row, the recipe's own gate if none is given.

    Raises: RecipeError if the run is not finished, has no such data set or metric, or nothing is demanded of it.
    """
    found = read_results(run)
    if dataset not in found["datasets"]:
        raise RecipeError(
            f"{run}: has no data set {dataset!r}.{did_you_mean(dataset, found['datasets'])} "
            f"Known: {', '.join(found['datasets'])}."
        )
    if bounds == Bounds(sure=bounds.sure):
        gate = {
            key: value for key, value in read_json(run / "recipe.json")["gate"].items() if value is not None
        }
        known = set(Bounds.__dataclass_fields__)
        bounds = Bounds(**{key: value for key, value in gate.items() if key in known}, sure=bounds.sure)
    rows = list(_rows(run, found, bounds, dataset))
    if not rows:
        raise RecipeError(
            f"{run}: nothing is demanded of it; give a bound, such as --min-retention 0.97, or a gate: in its recipe."
        )
    return rows


def refuse(run: Path, rows: list[Row]) -> None:
    """Raises: GateError that names every bound that is missed."""
    missed = [row.sentence() for row in rows if not row.ok]
    if missed:
        raise GateError(f"{run}: {'; '.join(missed)}.")


def _rows(run: Path, found: dict[str, Any], bounds: Bounds, dataset: str) -> Iterator[Row]:
    if bounds.min_retention is not None:
        kept = found["retentions"][dataset]
        yield _low(f"retention on {dataset}", _known(kept), bounds.min_retention, bounds.sure)
    if bounds.min_gain is not None:
        yield _low(f"gain over the control on {dataset}", _gain(found, dataset), bounds.min_gain, bounds.sure)
    for name, least in (bounds.at_least or {}).items():
        yield _low(_what(name, dataset), _metric(run, found, dataset, name), least, bounds.sure)
    highest = {**({"ece": bounds.max_ece} if bounds.max_ece is not None else {}), **(bounds.at_most or {})}
    for name, most in highest.items():
        yield _high(_what(name, dataset), _metric(run, found, dataset, name), most, bounds.sure)
    if bounds.group_gap_growth is not None:
        yield from _gaps(found, dataset, bounds.group_gap_growth, bounds.sure)
    if bounds.min_win_rate is not None:
        said = ((found.get("judged") or {}).get("against") or {}).get("teacher") or {}
        won = said.get("win_rate") or {"note": "nobody judged; add evaluate.judge and run again"}
        yield _low("win rate against the teacher", won, bounds.min_win_rate, bounds.sure)
    if bounds.max_exposure is not None:
        planted = (found.get("memorisation") or {}).get("canaries")
        mean = {"value": planted["models"]["student"]["mean"]} if planted else {}
        note = None if planted else "no secrets were planted; add evaluate.memorisation and run again"
        value = mean.get("value")
        ok = value is not None and value <= bounds.max_exposure
        yield Row(
            "mean exposure of planted secrets", value, f"at most {bounds.max_exposure:g} bits", ok, note
        )
    for name in bounds.better_than:
        yield _beats(run, found, name, dataset)
    if bounds.not_worse_than is not None:
        yield _against(run, bounds.not_worse_than, dataset)


def _low(what: str, measured: Mapping[str, Any], least: float, sure: bool) -> Row:
    value = measured.get("low") if sure else measured.get("value")
    ok = value is not None and value >= least
    return Row(what, value, f"at least {least:g}", ok, _why(measured, value, sure))


def _high(what: str, measured: Mapping[str, Any], most: float, sure: bool) -> Row:
    value = measured.get("high") if sure else measured.get("value")
    ok = value is not None and value <= most
    return Row(what, value, f"at most {most:g}", ok, _why(measured, value, sure))


def _why(measured: Mapping[str, Any], value: float | None, sure: bool) -> str | None:
    if value is None:
        return str(measured.get("note") or "was not measured").rstrip(".")
    return "the worse end of its 95 % interval" if sure else None


def _known(share: dict[str, Any]) -> dict[str, Any]:
    """A retention that has a note and no interval says nothing: the teacher was not better than the floor."""
    return {**share, "value": None} if share.get("note") and share.get("low") is None else share


def _what(name: str, dataset: str) -> str:
    """A task of the harness has documents of its own, and is measured on no data set."""
    return name if ":" in name else f"{name} on {dataset}"


def _metric(run: Path, found: dict[str, Any], dataset: str, name: str) -> dict[str, Any]:
    """Of the student: on the data set, or of the harness as "task:metric"."""
    tasks = {f"{one['task']}:{one['metric']}": one["models"]["student"] for one in found.get("harness") or []}
    measured: dict[str, Any] = {**found["student"]["metrics"][dataset], **tasks}
    if name not in measured:
        raise RecipeError(
            f"{run}: {name!r} was not measured on {dataset}.{did_you_mean(name, measured)} "
            f"Known: {', '.join(measured)}."
        )
    one: dict[str, Any] = measured[name]
    return one


def _gain(found: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The gain on the headline metric, turned so that more is better."""
    gain = ((found.get("gains") or {}).get(dataset) or {}).get(found["metric"])
    if gain is None:
        return {"note": "there is no control to compare with"}
    if found["metrics"][found["metric"]]["higher_is_better"]:
        return dict(gain)
    turned = {key: None if gain[key] is None else -gain[key] for key in ("value", "low", "high")}
    return {**turned, "low": turned["high"], "high": turned["low"], "note": gain.get("note")}


def _gaps(found: dict[str, Any], dataset: str, most: float, sure: bool) -> Iterator[Row]:
    """One row a group whose gap may have grown."""
    gaps = ((found.get("groups") or {}).get(dataset) or {}).get("gaps")
    if not gaps:
        note = "no group was measured; name columns in evaluate.groups and run again"
        yield Row(f"growth of group gaps on {dataset}", None, f"at most {most:g}", False, note)
        return
    for gap in gaps:
        what = f"growth of the gap in {gap['title']} of {gap['column']} = {gap['group']} on {dataset}"
        yield _high(what, gap["growth"], most, sure)


def _beats(run: Path, found: dict[str, Any], name: str, dataset: str) -> Row:
    """The headline metric less a baseline's, paired."""
    baselines = found.get("baselines") or {}
    if name not in baselines:
        raise RecipeError(
            f"{run}: has no baseline {name!r}.{did_you_mean(name, baselines)} "
            f"Known: {', '.join(baselines) or 'none; name some in evaluate.baselines and run again'}."
        )
    gap = baselines[name]["gains"][dataset][found["metric"]]
    note = None if gap["better"] else "not beyond chance" if gap["better"] is None else "surely worse"
    what = f"{found['metric']} on {dataset} less that of {name}"
    return Row(what, gap["value"], "better beyond chance", gap["better"] is True, note)


def _against(run: Path, other: Path, dataset: str) -> Row:
    """The headline metric against another run's on the same rows."""
    found = compare([other, run])
    if dataset not in found["differences"][0]["sets"]:
        raise RecipeError(f"{other}: was not measured on {dataset!r} too; choose another --on.")
    gap = found["differences"][0]["sets"][dataset][found["metric"]]
    note = "surely worse" if gap["better"] is False else None
    return Row(f"{found['metric']} on {dataset} less that of {other}", gap["value"], "no worse beyond chance",
               gap["better"] is not False, note)  # fmt: skip
