"""A judge behind an API: each score is one request in the run's ledger, asked for once and paid for once.

What it is told is a file that a user can read and change (data/prompts/judge_score.txt, or `data.judge.prompt`).  Its reply must end
with a line that is a number from 1 to 10 and nothing else; one that does not, or was not finished, is no score, and says why.
"""

import re
from collections.abc import Sequence

from ..asking import Answer, Ledger, Request, ask, chat
from ..data.formats import Row
from ..data.templates import fill
from ..data.written import exchange
from ..progress import Watch
from ..recipe import Api
from .api_writer import Lost
from .said import plain, without_thoughts

FIELD = "data.judge.api"
MAX_TOKENS = 256
"""Of a reply, if `api.max_tokens` is not given."""
BEST = 10
_LAST = re.compile(
    r"\**(?:score:)?[ \t*]*(10(?:\.0+)?|[1-9](?:\.\d+)?)(?:[ \t]*/[ \t]*10)?[*.]*", re.IGNORECASE
)
Scored = float | Lost
"""From 0 to 1, or why there is none."""


class ApiJudge:
    """Asks `api`, by `prompt`, how good answers are."""

    def __init__(self, api: Api, prompt: str) -> None:
        self.api, self.prompt = api, prompt

    def requests(self, rows: Sequence[Row]) -> list[Request]:
        """One a row; equal questions with equal answers are one request."""
        made = []
        for row in rows:
            question, answer = exchange(row)
            told = fill(self.prompt, text=plain(question), pair=plain(answer))
            made.append(chat(self.api, told, row["where"], "judge", max_tokens=MAX_TOKENS))
        return made

    def scores(self, rows: Sequence[Row], ledger: Ledger, watch: Watch, seed: int) -> list[Scored]:
        """In the order of `rows`.  Raises: as `ask`."""
        answers = ask(self.api, self.requests(rows), ledger, watch, seed=seed, field=FIELD)
        return [score_of(answer) for answer in answers]


def score_of(answer: Answer | None) -> Scored:
    """A tenth of the number that a reply ends with."""
    if answer is None:
        return Lost("no score: no answer")
    if not answer.usable:
        return Lost(f"no score: {answer.reason.partition(':')[0]}")
    lines = [line.strip() for line in without_thoughts(answer.text).splitlines() if line.strip()]
    found = _LAST.fullmatch(lines[-1]) if lines else None
    return Lost("no score: no number from 1 to 10 at the end") if found is None else float(found[1]) / BEST
