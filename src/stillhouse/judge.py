"""A model behind an API compares the student's answers with its teacher's and its control's, in both orders.

What it is told is a file that a user can read and change (data/prompts/judge_pair.txt, or `evaluate.judge.prompt`).  Its reply must
end with a line that is a verdict and nothing else; one that does not is counted, and its prompt is left out, for with one order
alone a judge that favours a place would decide.  Replies lie in judge.sqlite in the run folder (or in its plan's, for all its runs), and
none is bought twice.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .asking import Answer, Ledger, Request, ask, chat, ledger_of
from .data.templates import fill, template_in
from .files import read_jsonl
from .measure import family
from .measure.judged import Verdict, judged
from .progress import Watch
from .recipe import Judge

LEDGER = "judge.sqlite"
FIELD = "evaluate.judge.api"
_LAST = re.compile(r"verdict:[ \t]*(a|b|tie)", re.IGNORECASE)
WORDS: dict[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}


def verdict_of(answer: Answer | None) -> Verdict | None:
    """What a reply says; None if it has no verdict in its last line, or was not finished."""
    if answer is None or not answer.usable:
        return None
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    found = _LAST.fullmatch(lines[-1]) if lines else None
    return WORDS[found[1].lower()] if found else None


def request_of(row: Mapping[str, Any]) -> str:
    """What a row asks, in words: its prompt, or its conversation up to the first answer."""
    if "prompt" in row:
        return str(row["prompt"])
    turns = []
    for turn in row["messages"]:
        if turn["role"] == "assistant":
            break
        turns.append(f"{turn['role']}: {turn['content']}")
    return "\n".join(turns)


def judge(
    wanted: Judge | None,
    names: Sequence[str],
    rows: list[dict[str, Any]],
    said: Mapping[str, str],
    place: Path,
    watch: Watch,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """{"judge", "cost", "against": {name: {… of `judged`, "prompts", "unparsable", "replies"}}}; None unless asked for.

    Args:
        names: the models whose answers lie in `place`.
        rows: the held-out rows of data.
        said: row -> the words of a teacher that was asked, instead of its answers.
    Raises: TeacherError or ResourceError as `ask` does.
    """
    if wanted is None:
        return None
    answers = {name: _answers(place, name) for name in names}
    if said:
        answers["teacher"] = dict(said)
    ours, known = answers["student"], {row["id"]: row for row in rows}
    text = template_in(None if wanted.prompt is None else Path(wanted.prompt), "judge_pair")
    against: dict[str, dict[str, Any]] = {}
    bought: set[str] = set()
    with Ledger(ledger_of(place.parent, LEDGER)) as ledger:
        for other in [one for one in wanted.against if one in answers]:
            shared = [row for row in ours if row in answers[other]]
            apart = [row for row in shared if ours[row].strip() != answers[other][row].strip()]
            requests = [
                one
                for row in apart
                for one in _both(wanted, text, known[row], ours[row], answers[other][row])
            ]
            bought |= {one.question for one in requests}
            watch.note(
                f"  {wanted.api.model} judges student and {other}: {len(apart):,} prompts in both orders"
            )
            replies = [
                verdict_of(one) for one in ask(wanted.api, requests, ledger, watch, seed=seed, field=FIELD)
            ]
            pairs = [
                (first, second)
                for first, second in zip(replies[::2], replies[1::2], strict=True)
                if first is not None and second is not None
            ]
            against[other] = {
                "prompts": len(shared),
                "replies": len(replies),
                "unparsable": replies.count(None),
                **judged(pairs, len(shared) - len(apart), resamples=resamples, seed=seed),
            }
        spent = ledger.paid(wanted.api, bought) if wanted.api.price is not None else None
    preferred = {name: one["preferred"] for name, one in against.items() if one["preferred"] is not None}
    for name, one in family(preferred).items():  # all opponents share one error rate
        against[name]["preferred"] = one
    return {"judge": wanted.api.model, "cost": spent, "against": against}


def _answers(place: Path, name: str) -> dict[str, str]:
    """Row -> what a model wrote."""
    return {row["row"]: row["answer"] for row in read_jsonl(place / f"answers-{name}.jsonl")}


def _both(wanted: Judge, text: str, row: Mapping[str, Any], ours: str, theirs: str) -> list[Request]:
    """The question with ours first, and with ours second."""
    return [
        chat(
            wanted.api,
            fill(text, prompt=request_of(row), first=first, second=second),
            str(row["id"]),
            "judge",
            max_tokens=wanted.max_tokens,
        )
        for first, second in ((ours, theirs), (theirs, ours))
    ]
