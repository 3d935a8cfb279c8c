"""What APIs were paid for a student, and what its teacher's words cost there, by the ledgers of its run."""

from pathlib import Path
from typing import Any

from ..asking import LEDGER, Ledger, ledger_of
from ..judge import FIELD as JUDGE
from ..measure.economics import MILLION, economics
from ..registry import pick
from ..tasks import TASKS
from .hearing import questions
from .judging import judge_paid


def economics_of(
    recipe: Any,
    facts: dict[str, Any],
    models: dict[str, Any],
    judged: dict[str, Any] | None,
    seconds: float,
    run: Path,
) -> dict[str, Any] | None:
    """See `measure.economics`, with "paid" and "teacher_priced_by", the recipe's field that says what the teacher costs (None: this
    machine's time).  None without prices.

    Args: seconds: what all stages took.
    """
    prices = recipe.report.prices
    if prices is None:
        return None
    writes = pick(TASKS, recipe.task, "task").writes
    key = "generate" if writes else "rows"
    teacher, student = ((models[name].get("throughput") or {}).get(key) for name in ("teacher", "student"))
    paid = dollars_paid(recipe, facts, judged, run)
    known = prices.model_dump()
    by = "report.prices.teacher_per_million" if prices.teacher_per_million is not None else None
    if by is None and (asked := asked_per_million(recipe, facts, run, writes)) is not None:
        known["teacher_per_million"], by = asked, "teacher.api.price"
    dollars = sum(one for one in paid.values() if one is not None)
    return {
        **economics(teacher, student, seconds, **known, paid=dollars),
        "paid": paid,
        "teacher_priced_by": by,
    }


def dollars_paid(
    recipe: Any, facts: dict[str, Any], judged: dict[str, Any] | None, run: Path
) -> dict[str, float | None]:
    """The recipe's field that names an API -> dollars for what this run asked there, whichever run of its plan paid; None where no
    price is known, or answers came from a file."""
    found: dict[str, float | None] = dict(facts["counts"].get("written", {}).get("paid", {}))
    found |= judge_paid(recipe, run)
    for field, api in recipe.teacher.apis.items():
        before = found.get(field, 0.0)
        if api.price is None or api.base_url is None or before is None:
            found[field] = None
            continue
        asked = questions(api, recipe.task, facts["labels"], run / "prepare", field)
        some = {one.question for _, requests in asked.values() for one in requests}
        with Ledger(ledger_of(run, LEDGER)) as ledger:
            more = ledger.bill(api, some)
        found[field] = None if more is None else before + more
    return found if judged is None else found | {JUDGE: judged["cost"]}


def asked_per_million(recipe: Any, facts: dict[str, Any], run: Path, writes: bool) -> float | None:
    """Dollars for a million tokens that the teacher's API writes, with what it reads for them, or for a million rows that it labels:
    those of its answers in this run.  Where there are none, a token costs what it costs to write.  None without a price."""
    api = recipe.teacher.api
    if api is None or api.price is None:
        return None
    asked = questions(api, recipe.task, facts["labels"], run / "prepare")
    with Ledger(ledger_of(run, LEDGER)) as ledger:
        said = ledger.answers([one for _, some in asked.values() for one in some])
    priced = [(one.output_tokens, one.cost) for one in said.values() if one.cost is not None]
    tokens, dollars = sum(written for written, _ in priced), sum(cost for _, cost in priced)
    if not writes:
        return MILLION * dollars / len(priced) if priced else None
    return MILLION * dollars / tokens if tokens else float(api.price.output)
