"""Commands about finished runs: check, compare, history.  None of them loads a model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import RecipeError
from . import output
from .output import Format

Bound = Annotated[float | None, typer.Option(metavar="VALUE")]
Shown = Annotated[Format, typer.Option("--format", help="json: for machines.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="METRIC=VALUE", help="A bound; repeatable.")]


def check(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    min_retention: Annotated[float | None, typer.Option(help="Lowest share kept of the teacher.")] = None,
    min_gain: Annotated[
        float | None, typer.Option(help="Lowest gain over the hard-targets control, in the metric's unit.")
    ] = None,
    max_ece: Annotated[
        float | None, typer.Option(help="Highest expected calibration error of the student.")
    ] = None,
    no_group_gap_growth: Annotated[
        float | None,
        typer.Option(help="Most that the gap of any group may exceed the teacher's (see evaluate.groups)."),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=VALUE", help="Lowest value of a metric; repeatable."),
    ] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="METRIC=VALUE", help="Highest value of a metric; repeatable."),
    ] = None,
    not_worse_than: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Fail if the student of RUN is better beyond chance on the same rows."
        ),
    ] = None,
    min_win_rate: Annotated[
        float | None, typer.Option(help="Lowest win rate against the teacher (see evaluate.judge).")
    ] = None,
    max_exposure: Annotated[
        float | None,
        typer.Option(help="Highest mean exposure of planted secrets (see evaluate.memorisation), in bits."),
    ] = None,
    better_than: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BASELINE", help="A baseline of the run that must be beaten beyond chance; repeatable."
        ),
    ] = None,
    on: Annotated[str, typer.Option(metavar="SET", help="The data set that is looked at.")] = "eval",
    sure: Annotated[
        bool, typer.Option("--sure", help="Judge by the worse end of each 95 % interval.")
    ] = False,
    shown: Shown = "auto",
) -> None:
    """A quality gate for CI: exit code 6 if RUN misses a bound.  Without bounds, the recipe's own gate."""
    from ..gates import Bounds, refuse
    from ..gates import check as judge

    rows = judge(
        folder,
        Bounds(min_retention, min_gain, max_ece, no_group_gap_growth, _bounds(at_least), _bounds(at_most), not_worse_than, min_win_rate, max_exposure, better_than or (), sure),
        on,
    )  # fmt: skip
    if shown == "json":
        output.as_json({"passed": all(row.ok for row in rows), "rows": [row.as_json() for row in rows]})
    else:
        for row in rows:
            print(f"{'ok   ' if row.ok else 'FAIL '}{row.sentence()}")
    refuse(folder, rows)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN …", help="Finished runs, the reference first.")
    ],
    model: Annotated[
        Literal["student", "teacher", "initial", "hard_only"], typer.Option(help="Whose numbers.")
    ] = "student",
    resamples: Annotated[
        int, typer.Option(min=200, max=100_000, help="Bootstrap resamples and permutations.")
    ] = 2000,
    shown: Shown = "auto",
) -> None:
    """Students of several runs on the same rows, each against the first: paired intervals and tests.

    Written answers and tasks of the harness too, where the runs answered the same prompts and documents.
    """
    from ..compare import compare as against
    from ..report.numbers import count, number, with_interval

    found = against(runs, model=model, resamples=resamples)
    if shown == "json":
        output.as_json(found)
        return
    names = [Path(run["run"]).name for run in found["runs"]]
    for kind, metrics in found["runs"][0]["metrics"].items():
        lines = []
        for metric in metrics:
            gaps = [each["sets"].get(kind, {}).get(metric) for each in found["differences"]]
            if not any(gaps):
                continue
            arrow = "↑" if found["metrics"][metric]["higher_is_better"] else "↓"
            levels = [with_interval(run["metrics"].get(kind, {}).get(metric)) for run in found["runs"]]
            says = ", ".join(_verdict(gap, number) for gap in gaps)
            lines.append([f"{metric} {arrow}", *levels, says])
        if not lines:
            continue
        heads = [
            f"{name} ({count(run['parameters'])})" for name, run in zip(names, found["runs"], strict=True)
        ]
        output.table(f"on {kind}", ["", *heads, f"less {names[0]}"], lines)
        print()
    for kind, note in found["notes"].items():
        print(f"{kind}: {note}.")


def _verdict(gap: dict[str, Any] | None, number: Any) -> str:
    """'+0.02, better (p = 0.001)'."""
    if gap is None or gap["value"] is None:
        return "–"
    says = {True: "better", False: "worse", None: "no clear difference"}[gap["better"]]
    p = gap["p"] if gap["p_holm"] is None else gap["p_holm"]
    plus = "+" if gap["value"] > 0 else ""
    return f"{plus}{number(gap['value'])}, {says}" + ("" if p is None else f" (p = {number(p)})")


def history(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER …", help="Runs, or folders of runs.")
    ] = None,
    shown: Shown = "auto",
) -> None:
    """What every finished run reached, oldest first; the runs in runs/ if no FOLDER is given."""
    from ..finished import history as lines_of
    from ..report.numbers import count, number, percent, with_interval

    lines = lines_of(folders or [Path("runs")])
    if shown == "json":
        output.as_json(lines)
        return
    output.table(
        "",
        ["run", "made", "metric", "student", "retention", "gain", "parameters", "took"],
        [
            [
                line["run"],
                line["created"][:16].replace("T", " "),
                line["metric"],
                with_interval(line["student"]),
                percent(line["retention"]),
                number((line["gain_over_hard_only"] or {}).get("value")),
                count(line["parameters"]),
                output.duration(line["seconds"]),
            ]
            for line in lines
        ],
    )


def _bounds(said: list[str] | None) -> dict[str, float] | None:
    """["ece=0.05"] -> {"ece": 0.05}.  Raises: RecipeError for what is no such thing."""
    found = {}
    for one in said or []:
        name, _, value = one.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise RecipeError(f"{one!r} is no bound; write METRIC=VALUE, such as ece=0.05.") from None
    return found or None
