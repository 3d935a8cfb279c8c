"""What is to be written of what `data.generate` wants, without writing it: as an API's requests, step by step, or as a forecast.

The requests are those up to the first step of which not all texts are there: what goes on from these has them in its prompts.

For the forecast, texts that lie in the ledger, or that a model on this machine has written, are taken from there, and stand-ins as long as a text may be take the place of the others.
So the sum is a bound but for answers that are lost on the way or empty, which are bought again: a text may be shorter, one that
cannot be used leads to no further questions, and `balance`, which asks for more where texts are missing, is counted as if all that
are not there yet were.  What is chosen of several answers and what a filter drops is not known yet either, so nothing is dropped here.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..asking import Ledger, Request, takes
from ..asking.files import unanswered
from ..data import choosing
from ..data.choosing import Choice
from ..data.formats import Row
from ..data.prompting import Prompt
from ..data.split import Prepared
from ..locks import locked
from ..models.continuous import Sampling
from ..progress import Watch
from ..recipe import Api
from ..recipe import generate as kinds
from ..teachers.api_judge import FIELD, Scored
from ..teachers.api_writer import ApiWriter, Said, cut_off
from ..teachers.texts import Texts
from ..teachers.writer import Writer, text_keys
from .evaluating import OPENING
from .fetching import fetch_models
from .judging import api_judge
from .paces import pace_of_texts
from .reading import read_rows
from .writing import FOLDER, Desk, answered_rows, made_rows, make_others, make_writer
from .writing_part import rounds_of

BYTES = 4
"""Of a token, as `Request.size` counts."""


def open_texts(recipe: Any, folder: Path, watch: Watch) -> tuple[list[Request], int]:
    """(What APIs are asked for in the run in `folder`, up to the first step of which not all is there; how many steps go on from that
    one.)

    What models on this machine write before that is written.  Raises: ResourceError while another process works in `folder`.
    """
    with locked(folder):
        models = fetch_models(recipe, folder / "prepare", watch)
        rows, _ = read_rows(recipe, watch)
        writers = [make_writer(recipe, models), *make_others(recipe, models)]
        own = isinstance(writers[0], ApiWriter)  # the others write nothing but answers, which come first
        any_asked = any(isinstance(one, ApiWriter) for one in writers)
        left = sum(rounds_of(wanted) for wanted in recipe.data.generate) if own else int(any_asked)
        if (
            api_judge(recipe) is not None
        ):  # a judge of what is chosen; the rows that a filter asks about are not there yet
            left += sum(
                isinstance(one, kinds.Answers) and one.choose == "judge" for one in recipe.data.generate
            )
        desk = Halting(recipe, writers, models, Texts(folder / FOLDER), watch, left=left)
        with suppress(Halt):
            made_rows(desk, rows)
    watch.end()
    return desk.requests, desk.left


class Halt(Exception):
    """An API is to be asked before anything goes on, or none will be."""


@dataclass
class Halting(Desk):
    """A desk that asks no API, and halts where one is to be asked."""

    left: int = 0
    """Steps of APIs that are still to come."""
    requests: list[Request] = field(default_factory=list)
    """Of the steps so far, whether they are answered or not."""

    def texts(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[str],
        wanted: Any,
        temperature: float,
        writers: Sequence[Writer | ApiWriter] = (),
    ) -> list[list[Said]]:
        """As of any desk, if all that APIs are to write is there.  Raises: Halt otherwise, and after the last step."""
        sampling = Sampling(wanted.max_new_tokens, temperature, wanted.top_p)
        step = [
            one
            for writer in writers or self.writers[:1]
            if isinstance(writer, ApiWriter)
            for one in writer.requests(prompts, rows, sampling, self.recipe.seed, wanted.kind)
        ]
        if any(isinstance(writer, ApiWriter) for writer in writers or self.writers[:1]):
            self.step(step)
        return super().texts(prompts, rows, wanted, temperature, writers)

    def scores(self, rows: Sequence[Row]) -> Sequence[Scored]:
        """As of any desk, if all that a judge behind an API is to say is there.  Raises: as `texts`."""
        if (judge := api_judge(self.recipe)) is not None:
            self.step(judge.requests(rows))
        return super().scores(rows)

    def step(self, requests: list[Request]) -> None:
        """Note what is asked.  Raises: Halt if not all is answered, and after the last step."""
        self.requests += requests
        self.left -= 1
        with Ledger(self.ledger) as ledger:
            missing = unanswered(ledger, requests)
        if missing or not self.left:
            raise Halt


def foretold_rows(
    recipe: Any, rows: Prepared, models: dict[str, Any], run: Path, watch: Watch
) -> tuple[Prepared, dict[str, Any] | None]:
    """`rows` with stand-ins for what would be written, and {"requests", "seconds", "dollars"} of what is to be asked and written; None
    if every text is there."""
    writers = [make_writer(recipe, models), *make_others(recipe, models)]
    desk = Foretelling(recipe, writers, models, Texts(run / FOLDER), watch)
    old, unlabelled, new = made_rows(desk, rows)
    if recipe.data.filter is not None and recipe.data.filter.min_score is not None:
        desk.judge([row for row in [*old, *new, *rows.extra] if "text" not in row])
    if not any(desk.open.values()) and not desk.here:
        return rows, None
    classifies = recipe.task == "classification"
    bare = [row for row in new if classifies and "label" not in row]
    made = replace(
        rows,
        train=old + [row for row in new if not classifies or "label" in row],
        unlabelled=unlabelled + bare,
        written=frozenset(row["id"] for row in new),
    )
    return made, desk.bill()


@dataclass
class Foretelling(Desk):
    """A desk from which nothing goes out."""

    open: defaultdict[str, dict[str, tuple[Api, Request]]] = field(default_factory=lambda: defaultdict(dict))
    """Field of the recipe that names a writer or judge -> key -> its API, and what that will be asked."""
    here: list[tuple[Writer, list[Prompt], Sampling]] = field(default_factory=list)
    """(a model on this machine, what it will be asked, how it chooses tokens), step by step."""
    standing: set[str] = field(default_factory=set)
    """Stand-ins so far."""

    def said(
        self,
        writer: Writer | ApiWriter,
        prompts: Sequence[Prompt],
        rows: Sequence[str],
        sampling: Sampling,
        purpose: str,
    ) -> list[Said]:
        """The texts that are there already; stand-ins for all others."""
        if not isinstance(writer, ApiWriter):
            self.kept.look()
            keys = text_keys(writer.identity, prompts, sampling, self.recipe.seed)
            missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self.kept}
            if missing:
                self.here.append((writer, list(missing.values()), sampling))
            texts = [self.stand_in(key, sampling) if key in missing else self.kept[key] for key in keys]
            return [cut_off(sampling.max_new_tokens) if text is None else text for text in texts]
        some = writer.requests(prompts, rows, sampling, self.recipe.seed, purpose)
        with Ledger(self.ledger) as ledger:
            known = ledger.answers(some)
            self.open[writer.field] |= {one.key: (writer.api, one) for one in unanswered(ledger, some)}
        return [
            writer.text_of(known[one.key], prompt, sampling)
            if one.key in known
            else self.stand_in(one.key, sampling)
            for one, prompt in zip(some, prompts, strict=True)
        ]

    def stand_in(self, key: str, sampling: Sampling) -> str:
        """A stand-in that is known again."""
        text = stand_in(key, sampling.max_new_tokens)
        self.standing.add(text)
        return text

    def is_there(self, row: Row) -> bool:
        """Whether its text is none of the stand-ins."""
        return row.get("text") not in self.standing

    def chosen(
        self, wanted: kinds.Answers, questions: Sequence[Row], said: Sequence[choosing.Texts]
    ) -> list[Choice]:
        """The first that is there; a judge behind an API will be asked about all."""
        if wanted.choose == "judge":
            self.judge([row for rows in answered_rows(questions, said) for row in rows if row is not None])
        there = [[number for number, text in enumerate(own) if text is not None] for own in said]
        return [(own[0], "") if own else (None, choosing.CUT) for own in there]

    def judge(self, rows: Sequence[Row]) -> None:
        """Note what a judge behind an API will be asked about `rows`."""
        if (judge := api_judge(self.recipe)) is None:
            return
        with Ledger(self.ledger) as ledger:
            missing = unanswered(ledger, judge.requests(rows))
        self.open[FIELD] |= {one.key: (judge.api, one) for one in missing}

    def bill(self) -> dict[str, Any]:
        """All writers and the judge together, one after the other."""
        bills = [
            takes(next(iter(own.values()))[0], [request for _, request in own.values()])
            for own in self.open.values()
            if own
        ]
        unknown = any(one["dollars"] is None for one in bills)
        return {
            "requests": sum(one["requests"] for one in bills),
            "seconds": sum(one["seconds"] for one in bills) + self.writes_for(),
            "dollars": None if unknown else sum(one["dollars"] for one in bills),
        }

    def writes_for(self) -> float:
        """Seconds in which models on this machine write what is missing; each is loaded, and tried on some of its prompts."""
        seconds = 0.0
        paces: dict[tuple[str, float, float], tuple[float, float, int]] = {}
        for writer, prompts, sampling in self.here:
            how = (writer.identity, sampling.temperature, sampling.top_p)
            if how not in paces:
                self.watch.note("  measuring the writer")
                seconds += OPENING if all(writer.identity != tried for tried, *_ in paces) else 0.0
                first, following = pace_of_texts(writer, prompts, sampling)
                paces[how] = first, following, min(len(prompts), writer.batch_size)
            first, following, tried = paces[how]
            together = math.ceil(len(prompts) / writer.batch_size)
            seconds += len(prompts) * first / tried + together * (sampling.max_new_tokens - 1) * following
        return seconds


def stand_in(key: str, tokens: int) -> str:
    """A text of so many tokens, unlike any other."""
    return f"{key[:12]} {'text ' * (BYTES * tokens)}"[: BYTES * tokens].strip()
