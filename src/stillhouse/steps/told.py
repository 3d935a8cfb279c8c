"""Log-probabilities that an API told of its texts, as kept soft targets; and whether they can be used at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..asking import Answer
from ..asking.messages import spelled
from ..data.encode import Example
from ..errors import RecipeError
from ..files import hash_json
from ..progress import Watch
from ..recipe import Api, Label
from ..tasks import Task
from ..teachers.cache import Entry, SoftTargetCache, folder_name
from ..teachers.codec import encoded
from ..teachers.said import Spell, behind_thoughts
from ..teachers.told import Choice, Names, choices, has_turns, told_targets

FEWEST = 0.1
"""Share of the answers whose tokens must be the student's: below it the tokenizers are two, and what agrees does so by chance."""
LOOKED_AT = 32
"""Answers that are judged before the others are bought."""
SHARD = 1000
"""Examples in a file of the cache."""


@dataclass(frozen=True)
class Told:
    """What can be made of the answers' log-probabilities."""

    said: list[list[Choice] | None]
    """Of each example; see `choices`."""
    rows: int
    """Examples with an answer of the API's."""
    silent: int
    """Of these, how many came without log-probabilities."""
    beyond: int = 0
    """Of these, how many begin beyond `data.max_length`; they are not among the silent ones."""

    @property
    def soft(self) -> int:
        """How many become soft targets."""
        return sum(one is not None for one in self.said)

    @property
    def compared(self) -> int:
        """How many have tokens to compare with the student's."""
        return self.rows - self.silent - self.beyond

    @property
    def note(self) -> str:
        """What became of the answers, in a sentence without its full stop."""
        text = f"{self.soft:,} of {self.rows:,} answers of the teacher's are soft targets, by the log-probabilities of their tokens"
        whys = [
            f"{count:,} {why}"
            for count, why in (
                (self.silent, "came without any"),
                (self.beyond, "begin beyond data.max_length"),
                (self.compared - self.soft, "are cut into other tokens than the student's"),
            )
            if count
        ]
        return f"{text}; {' and '.join(whys)}, and are learned as text alone" if whys else text


def spelling(tokenizer: PreTrainedTokenizerBase) -> Spell:
    """The bytes of what a server calls a token, be it by its number, where the tokenizer's tokens stand for certain bytes."""
    try:
        return Names(tokenizer).spell
    except RecipeError:
        return spelled


def tells(recipe: Any) -> bool:
    """Whether an API's log-probabilities become soft targets of texts."""
    return bool(recipe.task == "causal_lm" and recipe.temperature is not None)


def places(label: Label, api: Api) -> int:
    """K: tokens that are kept of each position."""
    assert api.top_logprobs is not None
    return api.top_logprobs if label.top_k == "all" else min(label.top_k, api.top_logprobs)


def turns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Id of a row -> how many turns the assistant has in it: the answer, and in a conversation those before it."""
    return {
        row["id"]: sum(turn["role"] == "assistant" for turn in row["messages"]) if "messages" in row else 1
        for row in rows
    }


def listen(
    task: Task, examples: Sequence[Example], answers: Mapping[str, Answer], turns: Mapping[str, int]
) -> Told:
    """Compare the told tokens with the student's.  Raises: RecipeError where too few are the same, or nothing was told.

    Args:
        answers: row -> what was answered; examples of other rows have no soft targets.
        turns: row -> how many turns it has, of which the answer is the last; see `turns_of`.
    """
    names = Names(task.tokenizer)
    said: list[list[Choice] | None] = []
    rows = silent = beyond = 0
    for one in examples:
        answer, cut = answers.get(one.row), len(one.input_ids) >= task.max_length
        found = None
        if answer is not None:
            rows += 1
            if cut and not has_turns(one, turns[one.row]):  # an earlier turn is the last one that is left
                beyond += 1
            elif not answer.tokens:
                silent += 1
            else:
                found = choices(one, behind_thoughts(answer, names.spell), names, cut)
        said.append(found)
    told = Told(said, rows, silent, beyond)
    if silent and silent == rows - beyond:
        raise RecipeError(
            f"teacher.api.top_logprobs: none of {silent:,} answers came with log-probabilities; ask a server that gives them, "
            "or remove it and use objective: [{kind: hard}]."
        )
    if told.soft < FEWEST * told.compared:
        raise RecipeError(
            f"teacher.api.top_logprobs: {told.soft:,} of {told.compared:,} answers are cut into the tokens of the "
            "student's tokenizer, so the teacher's is another one; use a student of the teacher's family, or remove it and use "
            "objective: [{kind: hard}] (cross_tokenizer needs the teacher on this machine).  The answers are kept."
        )
    return told


def keep_told(
    recipe: Any, place: Path, identity: str, task: Task, examples: list[Example], told: Told, watch: Watch
) -> dict[str, Any]:
    """Write the soft targets of all `examples`.  Returns: {"cache", "meta", "told"} of the stage's result."""
    watch.note(f"  {told.note}")
    k = places(recipe.label, recipe.teacher.api)
    meta = {
        "teacher": identity,
        "task": recipe.task,
        "temperature": recipe.temperature,
        "top_k": k,
        "samples": None,
        "seed": None,
        "dtype": "float32",
        "outcomes": task.outcomes,
        "answers": _content(examples, told),
    }
    cache = SoftTargetCache(place / folder_name(meta), meta, watch.note)
    pairs = {one.key: (one, said) for one, said in zip(examples, told.said, strict=True)}
    missing = [pair for key, pair in pairs.items() if key not in cache]
    for start in range(0, len(missing), SHARD):
        cache.add(
            [
                Entry(one, encoded(told_targets(one, said, k), [one.counted], meta)[0])
                for one, said in missing[start : start + SHARD]
            ]
        )
    counts = {
        "rows": told.rows,
        "soft": told.soft,
        "silent": told.silent,
        "beyond": told.beyond,
        "note": told.note,
    }
    return {
        "cache": cache.folder.relative_to(place.parent).as_posix(),
        "meta": meta,
        "told": counts,
    }


def _content(examples: Sequence[Example], told: Told) -> str:
    """A hash of what was said of which tokens."""
    each = [
        [one.key, hash_json(None if said is None else [sorted(choice.items()) for choice in said])[:16]]
        for one, said in zip(examples, told.said, strict=True)
    ]
    return hash_json(each)[:16]
