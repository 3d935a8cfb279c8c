"""Asking teachers behind APIs about a run's rows: what is asked, what it will take, and what was heard.  `asking` learns from it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..asking import LEDGER, Answer, Ledger, Request, ask, ledger_of, takes
from ..asking.files import question_text, unanswered
from ..data.encode import IGNORED, Example
from ..data.filters.rules import looked_up
from ..data.load import read_raw
from ..files import hash_path, read_jsonl
from ..progress import Watch
from ..recipe import Api
from ..tasks import Task
from ..teachers.past import import_answers, index_questions
from ..teachers.said import asked_about, question_of, without_thoughts
from .told import LOOKED_AT

Rows = list[dict[str, Any]]
HEARD = "by set and question, whole"
"""Changes when other things are made of answers that lie in the ledger: stages that hear an API run anew, and no others."""


@dataclass(frozen=True)
class Heard:
    """A row, and what the teacher said to it; None if nobody has an answer."""

    row: dict[str, Any]
    answer: Answer | None
    question: str
    """The request's key: rows that ask the same share it, and the answer."""


def asked_rows(prepared: Path) -> dict[str, Rows]:
    """Data set -> its rows, of those that are asked about."""
    paths = sorted(prepared.glob("asked-*.jsonl"))
    return {path.stem.removeprefix("asked-"): read_jsonl(path) for path in paths}


def questions(
    api: Api, task: str, labels: list[str], prepared: Path, field: str = "teacher.api"
) -> dict[str, tuple[Rows, list[Request]]]:
    """Data set -> its rows, and what the teacher is asked about each."""
    sets = asked_rows(prepared).items()
    return {name: (rows, asked_about(rows, task, labels, api, name, field)) for name, rows in sets}


def hear(
    api: Api,
    field: str,
    recipe: Any,
    facts: dict[str, Any],
    run: Path,
    watch: Watch,
    look: Callable[[list[Heard]], None] | None = None,
) -> dict[str, list[Heard]]:
    """Ask `api`, which the recipe names in `field`, about every row that has no answer of its yet.  Returns: by data set.

    Args: look: is shown the first training rows' answers before the others are asked for, and may raise.
    """
    asked = questions(api, recipe.task, facts["labels"], run / "prepare", field)
    with Ledger(ledger_of(run, LEDGER)) as ledger:
        flat = [request for _, some in asked.values() for request in some]
        ledger.plan(flat)
        if api.answers is not None:
            said = take_answers(ledger, index_of([asked]), Path(api.answers), api, field)
            watch.note(f"  {said}")
        if look is not None:
            some = asked["train"][1]
            if len(unanswered(ledger, some)) > LOOKED_AT:
                watch.note(f"  the first {LOOKED_AT} answers tell whether their tokens are the student's")
            first = ask(api, some[:LOOKED_AT], ledger, watch, seed=recipe.seed, field=field)
            look(
                [
                    Heard(row, said, one.key)
                    for row, said, one in zip(asked["train"][0], first, some, strict=False)
                ]
            )
        answers = iter(ask(api, flat, ledger, watch, seed=recipe.seed, field=field))
    return {
        name: [Heard(row, next(answers), one.key) for row, one in zip(*pairs, strict=True)]
        for name, pairs in asked.items()
    }


def once(heard: Iterable[Heard]) -> list[Heard]:
    """The first row of each question: what was said to it is one answer, whoever else asks the same."""
    found: dict[str, Heard] = {}
    for one in heard:
        found.setdefault(one.question, one)
    return list(found.values())


def index_of(asked: Sequence[dict[str, tuple[Rows, list[Request]]]]) -> dict[str, Request]:
    """What answers in a file are found by -> the question.

    Args: asked: the `questions` of each who is asked; of several, only a batch's results say which of them answered.
    """
    sets = [pair for each in asked for pair in each.values()]
    if len(asked) > 1:
        return {request.key: request for _, some in sets for request in some}
    return index_questions(pair for rows, some in sets for pair in zip(rows, some, strict=True))


def take_answers(
    ledger: Ledger,
    index: Mapping[str, Request],
    path: Path,
    api: Api | None,
    field: str = "teacher.api",
) -> str:
    """Past answers in a file to the questions of `index` -> the ledger, which knows these.  Returns: a sentence about it.

    Args: api: whose answers they are, `field` of the recipe; None if it may be one of several.
    """
    columns = {} if api is None else {str(ours): theirs for ours, theirs in api.columns.items()}
    taken, read = import_answers(ledger, read_raw(path), index, path.name, columns, field)
    return f"{path.name}: {taken:,} of {read:,} answers belong to a row of this run"


def statuses(heard: dict[str, list[Heard]]) -> dict[str, dict[str, int]]:
    """Data set -> how many answers came to what; that to a question which several rows ask counts once."""
    return {
        name: dict(Counter("no answer" if one.answer is None else one.answer.status for one in once(some)))
        for name, some in heard.items()
    }


def what_was_said(recipe: Any, facts: dict[str, Any], run: Path) -> dict[str, str]:
    """Row id -> the teacher's words without its thoughts, of the held-out rows that it answered."""
    rows, some = questions(recipe.teacher.api, recipe.task, facts["labels"], run / "prepare")["eval"]
    with Ledger(ledger_of(run, LEDGER)) as ledger:
        known = ledger.answers(some)
    pairs = zip(rows, some, strict=True)
    usable = {row["id"]: known[one.key] for row, one in pairs if one.key in known and known[one.key].usable}
    return {name: without_thoughts(answer.text) for name, answer in usable.items()}


def what_asking_takes(
    recipe: Any, facts: dict[str, Any], run: Path, before: Collection[str] = ()
) -> dict[str, Any]:
    """What has no answer yet, of the teacher or of all members of a panel that are asked, one after the other: the requests' keys,
    the seconds they take, and the dollars they may cost at most (None: no price).

    before: keys of what other runs of its plan will have asked by then.
    """
    keys: list[str] = []
    found: list[dict[str, Any]] = []
    for field, api in recipe.teacher.apis.items():
        asked = questions(api, recipe.task, facts["labels"], run / "prepare", field)
        with Ledger(ledger_of(run, LEDGER)) as ledger:
            missing = unanswered(ledger, [one for _, some in asked.values() for one in some])
        missing = [one for one in missing if one.key not in before]
        keys += [one.key for one in missing]
        found.append(takes(api, missing))
    dollars = [one["dollars"] for one in found]
    return {
        "keys": keys,
        "requests": sum(one["requests"] for one in found),
        "seconds": sum(one["seconds"] for one in found),
        "dollars": None if None in dollars else sum(dollars),
    }


def stand_ins(api: Api, task: Task, rows: Rows) -> list[Example]:
    """Examples as long as those that the answers will make, at most, one a row."""
    found = []
    for row in rows:
        apart = (
            task.name == "seq2seq"
        )  # source and target are two texts, as long as can be read and written each
        text = row["prompt"] if apart else question_text(question_of(row, api, "plan").body)
        asked = task.tokenizer(text, verbose=False)["input_ids"][: task.max_length]
        answer = [0] * (api.max_tokens or 1024)
        if apart:
            ids, first, starts = [*asked, *answer[: task.max_length]], len(asked), [0, len(asked)]
        else:
            ids, starts = [*asked, *answer][: task.max_length], [0]
            first = min(len(asked), len(ids) - 1)
        labels = [IGNORED] * first + ids[first:]
        found.append(Example(row["id"], row["id"], ids, labels, starts, 0))
    return found


def answers_stamp(recipe: Any) -> list[str] | None:
    """Sums of the files of past answers and of the prompt, if there are any, and of what the filter looks up: they may be others tomorrow."""
    api = recipe.teacher.api
    if api is None:
        return None
    looked = [] if recipe.data.filter is None else looked_up(recipe.data.filter)
    return [HEARD, *_sums([api.answers, _prompt_file(api), *looked])]


def panel_stamp(recipe: Any) -> list[str] | None:
    """Sums of the files of past answers and of prompts of those who sit on a panel; None if nobody on it is behind an API."""
    apis = [one.api for one in recipe.teacher.panel or [] if one.api is not None]
    return (
        [HEARD, *_sums(path for api in apis for path in (api.answers, _prompt_file(api)))] if apis else None
    )


def _prompt_file(api: Api) -> str | None:
    """The file that has the recipe's prompt, if it is in one."""
    return None if api.prompt is None or "{text}" in api.prompt else api.prompt


def _sums(named: Iterable[str | None]) -> list[str]:
    paths = [Path(name) for name in named if name is not None]
    return [hash_path(path) if path.exists() else "missing" for path in paths]
