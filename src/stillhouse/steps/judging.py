"""Answers that a judge scores: `data.judge`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..asking import LEDGER, Ledger, ledger_of
from ..data.formats import Row
from ..data.split import Prepared
from ..data.templates import judge_prompt
from ..data.written import exchange
from ..errors import DataError
from ..files import write_text
from ..progress import Watch
from ..tasks.judge import Judge
from ..teachers.api_judge import FIELD, ApiJudge, Scored
from ..teachers.api_writer import Lost

ASKED = "prepare/judged.txt"
"""Hashes of what a run asked a judge behind an API, one a line: the ledger may be that of several runs, and a stage another run's."""


def make_judge(models: dict[str, Any]) -> Judge:
    """The model that `data.judge` names, as it was fetched."""
    found = models["judge"]
    return Judge(Path(found["folder"]), found["prompt"], "bfloat16" if models["bfloat16"] else "float32")


def api_judge(recipe: Any) -> ApiJudge | None:
    """The judge behind an API, if the recipe names one.  Raises: RecipeError if its prompt does not show what it is to judge."""
    wanted = recipe.data.judge
    return None if wanted is None or wanted.api is None else ApiJudge(wanted.api, judge_prompt(wanted.prompt))


def scored(
    recipe: Any, rows: Sequence[Row], models: dict[str, Any], run: Path, watch: Watch
) -> Sequence[Scored]:
    """What `data.judge` says of each row's answer; hashes of what an API is asked are added to `ASKED`.

    Raises: as `asking.ask`.
    """
    if (judge := api_judge(recipe)) is None:
        return make_judge(models).scores([exchange(row) for row in rows])
    asked = _asked(run) | {one.question for one in judge.requests(rows)}
    write_text(run / ASKED, "".join(f"{question}\n" for question in sorted(asked)))
    with Ledger(ledger_of(run, LEDGER)) as known:
        return judge.scores(rows, known, watch, recipe.seed)


def judge_paid(recipe: Any, run: Path) -> dict[str, float | None]:
    """{field: dollars for what the run asked a judge behind an API}, None without a price; {} if there is none."""
    if not (run / ASKED).exists() or (judge := api_judge(recipe)) is None:
        return {}
    with Ledger(ledger_of(run, LEDGER)) as known:
        return {FIELD: None if judge.api.price is None else known.bill(judge.api, _asked(run))}


def _asked(run: Path) -> set[str]:
    """The questions in `ASKED`."""
    return set((run / ASKED).read_text(encoding="utf-8").split()) if (run / ASKED).exists() else set()


def judged(recipe: Any, rows: Prepared, models: dict[str, Any], run: Path, watch: Watch) -> Prepared:
    """`rows` without those to learn from whose answer the judge scores below `data.filter.min_score`, or does not score; they are
    kept among the dropped ones, with their score.

    Raises: DataError for plain text, which answers nothing, and if no row is left.
    """
    wanted = recipe.data.filter
    if wanted is None or wanted.min_score is None:
        return rows
    learned = {"train": rows.train, "extra": rows.extra}
    if plain := next((row for some in learned.values() for row in some if "text" in row), None):
        raise DataError(
            f"{plain['where']}: plain text answers nothing that could be scored; remove data.filter.min_score."
        )
    kept: dict[str, list[Row]] = {}
    dropped: list[dict[str, Any]] = []
    low = f"judge score below {wanted.min_score:g}"
    for name, some in learned.items():
        scores = scored(recipe, some, models, run, watch) if some else []
        kept[name] = []
        for row, score in zip(some, scores, strict=True):
            if not isinstance(score, Lost) and score >= wanted.min_score:
                kept[name].append(row)
                continue
            why = (
                {"reason": score.reason}
                if isinstance(score, Lost)
                else {"reason": low, "score": round(score, 4)}
            )
            dropped.append({**row, **why, "set": "written" if row["id"] in rows.written else name})
    unscored = sum("score" not in row for row in dropped)
    watch.note(
        f"  the judge scores {len(dropped) - unscored:,} rows below {wanted.min_score:g}, which are left out"
        + (f", as are {unscored:,} without a score" if unscored else "")
    )
    if not kept["train"]:
        raise DataError(
            f"train: no row is left of {len(rows.train):,} ({', '.join(sorted({row['reason'] for row in dropped}))}); lower "
            "data.filter.min_score."
        )
    lost = {name: Counter(row["reason"] for row in dropped if row["set"] == name) for name in rows.counts}
    counts = {
        name: {
            **of,
            "kept": of["kept"] - lost[name].total(),
            "dropped": dict(Counter(of["dropped"]) + lost[name]),
        }
        for name, of in rows.counts.items()
    }
    return replace(
        rows, train=kept["train"], extra=kept["extra"], dropped=[*rows.dropped, *dropped], counts=counts
    )
