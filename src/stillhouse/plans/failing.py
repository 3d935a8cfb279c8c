"""On which rows of a pool does a student fail?  Here a plan runs models itself: it reads with them, and never trains them.

A row is looked at as it is, or, where a teacher will answer it (or a checker judges answers), with an answer that the student
writes itself: states that it gets into, as in Agarwal et al. 2023 (arXiv:2306.13649).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..answers import passed, spoken
from ..data.encode import IGNORED, Example, control_pieces
from ..data.formats import Row, answer_alone, has_answer
from ..data.masking import unmasked
from ..data.prompting import prompt_ids
from ..data.sets import read_rows
from ..data.split import in_order
from ..data.written import answered, prompt_of
from ..errors import RecipeError
from ..measure import Rows
from ..models.machine import device
from ..probe import look
from ..progress import Watch
from ..recipe import Recipe
from ..recipe.plan import OF_TEACHER, Rounds
from ..sources import resolve
from ..steps.questions import refuse_plain_text
from ..tasks import Task
from ..tasks.writing import greedy

AT_ONCE = 256
"""Prompts between two lines about progress."""


@dataclass(frozen=True)
class Fresh:
    """A row of the pool."""

    row: Row
    written: dict[str, Any]
    """As the file of chosen rows has it: without what only the teacher is to say."""
    example: Example | None = None
    """What the models read; None where the student is to answer first."""
    prompt: tuple[int, ...] = ()
    """Then what it is to answer, in its tokens."""


Pool = dict[str, Fresh]
"""Found by key."""


def student_answers(recipe: Recipe) -> bool:
    """Whether the student answers the pool's rows, to show where it fails."""
    assert isinstance(recipe.plan, Rounds)
    return recipe.plan.answers is not None or recipe.plan.by == "checker"


def fresh_rows(recipe: Recipe, watch: Watch) -> list[Row]:
    """The pool's rows in their seeded order, whoever can read them.  Raises: RecipeError if nobody can write of them what is asked for."""
    assert isinstance(recipe.plan, Rounds)
    settings = recipe.plan.pool
    found = resolve(
        settings.source,
        sha256=settings.sha256,
        revision=settings.revision,
        kind="data",
        progress=watch.note,
    )
    answered = recipe.plan.answers is None
    rows = read_rows("pool", "plan.pool", settings, recipe.task, found.path, answered=answered)
    for one in recipe.plan.write:
        refuse_plain_text(one, rows, "plan.write")
    return in_order(rows, recipe.seed, "order", "pool")[: settings.limit]


def readable(recipe: Recipe, rows: Sequence[Row], task: Task, known: Iterable[Example]) -> Pool:
    """The rows that the models can read and that are not among the `known` examples."""
    plain = recipe.task == "causal_lm" and bool(rows) and "text" in rows[0]
    if student_answers(recipe):
        if plain:
            raise RecipeError(
                "plan.pool: plain text asks nothing that the student could answer; give rows with a prompt or messages, or "
                "say which column asks with plan.pool.columns: {prompt: text}."
            )
        return _prompts(recipe, rows, task, known)
    there = {_content(one, task) for one in known}
    by_id = {row["id"]: row for row in rows}
    unlabelled = [{name: value for name, value in row.items() if name != "label"} for row in rows]
    examples = [one for one in task.encode(unlabelled)[0] if _content(one, task) not in there]
    if plain or task.redraws:  # several short texts share an example, and a long one has several
        return {one.key: Fresh(by_id[one.row], {"text": _text(one, task)}, one) for one in examples}
    return {one.key: Fresh(by_id[one.row], written_down(by_id[one.row]), one) for one in examples}


def _content(example: Example, task: Task) -> str | tuple[int, ...]:
    """What a row is known by: its key, or its text where another seed hides other tokens of it."""
    return tuple(unmasked(example)) if task.redraws else example.key


def _text(example: Example, task: Task) -> str:
    """What plain text an example was made from: that piece of it alone."""
    tokenizer = task.tokenizer
    if not task.redraws:
        return str(tokenizer.decode(example.input_ids, skip_special_tokens=True))
    around = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # an unknown word stays one
    ids = [token for token in unmasked(example) if token not in around]
    # a piece may begin within a word: its first token is decoded behind itself, for at the beginning it would be "##ing", and
    # what is then more tokens than there is room for loses its end, for it would be two rows
    before = len(str(tokenizer.decode(ids[:1])))
    texts = (str(tokenizer.decode([ids[0], *ids[:end]]))[before:].strip() for end in range(len(ids), 0, -1))
    return next(text for text in texts if len(tokenizer(text)["input_ids"]) <= task.max_length)


def _prompts(recipe: Recipe, rows: Sequence[Row], task: Task, known: Iterable[Example]) -> Pool:
    """Rows by what they ask; what is asked in a known example is known."""
    there = {
        tuple(one.input_ids[:at])
        for one in known
        for at in range(1, len(one.labels))
        if one.labels[at] != IGNORED and one.labels[at - 1] == IGNORED
    }
    control = control_pieces(task.tokenizer)
    assert isinstance(recipe.plan, Rounds)
    bare = recipe.plan.answers is not None
    found: Pool = {}
    for row in map(_open, rows):
        ids = tuple(prompt_ids(prompt_of(row), task.tokenizer, control, "the student"))
        if len(ids) < task.max_length and ids not in there:
            found[row["id"]] = Fresh(row, _asked(row) if bare else written_down(row), prompt=ids)
    return found


def worst_first(
    recipe: Recipe, pool: Pool, task: Task, student: Path, teacher: Path | None, watch: Watch
) -> list[str]:
    """Keys of the pool's rows, those first on which the student in `student` fails most; by a checker, no others."""
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    keys = list(pool)
    if not student_answers(recipe):
        scores = _scores(recipe, [pool[key].example for key in keys], task, student, teacher, watch)
    else:
        said = written_by(student, task, [pool[key].prompt for key in keys], longest_answer(recipe), watch)
        if wanted.by == "checker":
            scores = 1.0 - _passed(recipe, said, [pool[key].row for key in keys])
        else:
            scores = _of_answers(recipe, said, pool, task, student, teacher, watch)
    watch.end()
    order = np.argsort(-scores, kind="stable")
    return [keys[at] for at in order if wanted.by != "checker" or scores[at] > 0]


def written_by(
    student: Path, task: Task, prompts: Sequence[Sequence[int]], most: int, watch: Watch
) -> list[str]:
    """The student's own answers, greedy, of at most `most` tokens."""
    model = task.load(student).to(device()).eval()
    made: list[list[int]] = []
    for start in range(0, len(prompts), AT_ONCE):
        made += greedy(model, task, prompts[start : start + AT_ONCE], most)
        watch.step("the student answers", len(made), len(prompts))
    return [spoken(tokens, task.tokenizer) for tokens in made]


def choosing_takes(recipe: Recipe, pool: Pool, at_once: Sequence[float], pace: dict[str, float]) -> float:
    """Seconds to look at the whole pool once, at most: the student answers, if it does, and both models
    read, or the student alone.

    Args: at_once: (how many answers are written together, how many times as long a step of them takes); `pace`: plan.json's
        "seconds_a_token".
    """
    longest = longest_answer(recipe) if student_answers(recipe) else 0
    lengths = [
        len(fresh.prompt) if fresh.example is None else len(fresh.example.input_ids)
        for fresh in pool.values()
    ]
    tokens = sum(lengths) + len(pool) * longest
    slots, longer = at_once
    writing = longest * -(-len(pool) // slots) * longer * pace["student_step"]
    writing += sum(lengths) * pace["student_read"] if longest else 0.0
    assert isinstance(recipe.plan, Rounds)
    reads = recipe.plan.by != "checker"
    counted = (
        sum(fresh.example.counted for fresh in pool.values() if fresh.example is not None)
        + len(pool) * longest
    )
    by_teacher = pace["teacher_read"] if recipe.plan.by in OF_TEACHER else 0.0
    reading = tokens * (by_teacher + pace["student_read"]) + 2 * counted * pace["compare"]
    return writing + (reading if reads else 0.0)


def longest_answer(recipe: Recipe) -> int:
    """Tokens of an answer of the student's: as many as it is judged by, or as the teacher may write."""
    wanted, judged = recipe.plan, recipe.evaluate.answers
    assert isinstance(wanted, Rounds)
    if wanted.by == "checker" or wanted.answers is None:
        assert judged is not None
        return judged.max_new_tokens
    return wanted.answers.max_new_tokens


def _passed(recipe: Recipe, said: Sequence[str], rows: Sequence[Row]) -> Any:
    """What the checker says of each answer, [N] from 0 to 1."""
    wanted = recipe.evaluate.answers
    assert wanted is not None
    assert wanted.checker is not None
    answers = [
        answer_alone(text) if "rationale" in row else text for text, row in zip(said, rows, strict=True)
    ]
    return passed(wanted.checker, answers, [dict(row) for row in rows])


def _of_answers(
    recipe: Recipe,
    said: Sequence[str],
    pool: Pool,
    task: Task,
    student: Path,
    teacher: Path | None,
    watch: Watch,
) -> Any:
    """How much the student fails within its own answers, [N]; one that is empty, and cannot be read, fails most."""
    scores = np.full(len(pool), np.inf)
    place: dict[str, int] = {}
    rows = []
    for at, (text, fresh) in enumerate(zip(said, pool.values(), strict=True)):
        row = answered(fresh.row, text)
        if not isinstance(row, str):
            place[row["id"]] = at
            rows.append(dict(row))
    examples, _ = task.encode(rows)
    if examples:
        read = _scores(recipe, examples, task, student, teacher, watch)
        scores[[place[one.row] for one in examples]] = read
    return scores


def _scores(
    recipe: Recipe,
    examples: Sequence[Example | None],
    task: Task,
    student: Path,
    teacher: Path | None,
    watch: Watch,
) -> Any:
    some = [example for example in examples if example is not None]
    if recipe.task == "classification":  # the rows' labels, if any, are not looked at
        some = [replace(example, labels=[0]) for example in some]
    assert isinstance(recipe.plan, Rounds)
    return failing(look([student], task, some, recipe.label.batch_size, watch, teacher), recipe.plan.by)


def failing(rows: Rows, by: str) -> Any:
    """How much a student fails on each row, [N]: larger is worse; see `recipe.plan.Rounds.by`."""
    if by == "divergence":
        return rows["kl"]
    if by == "uncertainty":
        return 1.0 - rows["bin_conf"].sum(1) if "bin_conf" in rows else rows["nll"]
    counted = rows["tokens"] if "tokens" in rows else rows["texts"]
    return counted - rows["agree"] + 1e-6 * np.tanh(rows["kl"])  # among equals, the farther from the teacher


def written_down(row: Row) -> dict[str, Any]:
    """A row as a file has it, without its label: the teacher gives one."""
    return {
        name: value
        for name, value in row.items()
        if name in ("text", "pair", "prompt", "completion", "messages", "rationale")
    }


def _open(row: Row) -> Row:
    """The row with a place for an answer."""
    if has_answer(row):
        return row
    if "messages" in row:
        return cast(Row, {**row, "messages": [*row["messages"], {"role": "assistant", "content": ""}]})
    return cast(Row, {**row, "completion": ""})


def _asked(row: Row) -> dict[str, Any]:
    """The question alone, as a file has it."""
    return {"messages" if "messages" in row else "prompt": prompt_of(row)}
