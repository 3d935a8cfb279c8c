"""A writer behind an API: each text is one request in the run's ledger, asked for once and paid for once.

Several texts of one prompt are several requests: each has a seed of its own, which is sent and so is part of what is asked.  An
answer that is cut off, withheld, empty or refused stays in the ledger, is not bought again, and says why there is no text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..asking import Answer, Ledger, Request, ask, chat
from ..asking.messages import place_of
from ..data.prompting import Prompt
from ..models.continuous import Sampling
from ..progress import Watch
from ..recipe import Api
from ..seeds import draw_seed
from .said import after, as_sent, without_thoughts
from .writer import text_keys

SEEDS = 1 << 31
"""Servers keep a seed in 32 bits or more, some with a sign."""


@dataclass(frozen=True)
class Lost:
    """A text that there is not."""

    reason: str


Said = str | Lost


class ApiWriter:
    """Asks `api` for texts; `field` is where the recipe names it, and `before` are the APIs that it names before."""

    def __init__(self, api: Api, field: str, before: Iterable[Api | None] = ()) -> None:
        self.api, self.field, place = api, field, place_of(api, before)
        self.identity = f"api:{api.model}{place and f' at {place}'}"
        # what a teacher is asked for besides a text costs money here and is not read
        self._asked = api.model_copy(update={"top_logprobs": None, "max_tokens": None})
        self.asked: set[str] = set()
        """Questions whose answers were its texts so far."""

    def requests(
        self, prompts: Sequence[Prompt], rows: Sequence[str], sampling: Sampling, seed: int, purpose: str
    ) -> list[Request]:
        """One a prompt; equal ones are one request if sampling is greedy.

        Args: rows: what each is asked for.
        """
        keys = text_keys(self.identity, prompts, sampling, seed)
        api = self._asked
        fields: dict[str, Any] = {} if api.temperature is None else {"temperature": sampling.temperature}
        if api.temperature is not None and sampling.top_p < 1.0:
            fields["top_p"] = sampling.top_p
        made = []
        for prompt, row, key in zip(prompts, rows, keys, strict=True):
            own = {**fields, "seed": draw_seed(seed, key) % SEEDS} if sampling.temperature else fields
            made.append(chat(api, as_sent(prompt), row, purpose, max_tokens=sampling.max_new_tokens, **own))
        return made

    def texts(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[str],
        sampling: Sampling,
        seed: int,
        purpose: str,
        ledger: Ledger,
        watch: Watch,
    ) -> list[Said]:
        """In the order of `prompts`.  Raises: as `ask`."""
        some = self.requests(prompts, rows, sampling, seed, purpose)
        self.asked |= {one.question for one in some}
        answers = ask(self.api, some, ledger, watch, seed=seed, field=self.field)
        return [
            self.text_of(answer, prompt, sampling) for answer, prompt in zip(answers, prompts, strict=True)
        ]

    def text_of(self, answer: Answer | None, prompt: Prompt, sampling: Sampling) -> Said:
        """What an answer comes to."""
        if answer is None:
            return Lost("no answer")
        if answer.status == "truncated":
            return cut_off(sampling.max_new_tokens)
        if not answer.usable:
            return Lost(answer.reason.partition(":")[0])
        text = without_thoughts(answer.text)
        if not text.strip():
            return Lost("empty answer")
        return after(prompt, text, self.api) if isinstance(prompt, str) else text


def paid_to(writers: Iterable[object], path: Path) -> dict[str, float | None]:
    """The recipe's field that names an API among the writers -> dollars for its texts so far, by the ledger at `path`; None without a
    price."""
    apis = [one for one in writers if isinstance(one, ApiWriter)]
    if not apis:
        return {}
    with Ledger(path) as ledger:
        return {one.field: None if one.api.price is None else ledger.bill(one.api, one.asked) for one in apis}


def cut_off(tokens: int) -> Lost:
    """A text without its end: the student would learn that it ends there."""
    return Lost(f"longer than {tokens} tokens")
