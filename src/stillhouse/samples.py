"""Held-out rows, and what each model makes of them, side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from .data.encode import IGNORED, Example
from .measure import Rows
from .models.machine import device
from .progress import Watch
from .tasks import Task
from .tasks.bilingual import as_read_by, voice
from .tasks.writing import greedy

PROMPT_TOKENS, NEW_TOKENS = 24, 32
HIDDEN = "____"
"""In place of the token that a masked language model is asked for, whatever stands there."""
KINDS = ("student fails", "teacher fails", "both fail", "part", "both right")
"""How a row went whose answer is known, the most telling first; "part" are rows without a label on which the two say different things."""


class Writing:
    """`count` held-out prompts and what each language model writes after them: greedy, so that anyone gets the same.

    Args: said: row -> the words of a teacher that is not among the models.
    """

    def __init__(
        self, task: Task, examples: list[Example], count: int, watch: Watch, said: Mapping[str, str] = {}
    ) -> None:
        self.task, self.watch = task, watch
        long_enough = [
            example for example in examples if example.asked or len(example.input_ids) > PROMPT_TOKENS
        ]
        self.examples = long_enough[:count] if task.writes else []
        self.prompts = [_prompt(example) for example in self.examples]
        self.found: list[dict[str, Any]] = [
            {"prompt": task.tokenizer.decode(prompt)} for prompt in self.prompts
        ]
        for row, example in zip(self.found, self.examples, strict=True):
            if example.row in said:
                row["teacher"] = said[example.row]

    def add(
        self,
        name: str,
        model: PreTrainedModel,
        write: Callable[[Any, Task, Sequence[Sequence[int]], int], list[list[int]]] = greedy,
    ) -> None:
        """Let a model write; the untrained student is spared.  Args: write: as `greedy`, or who remembers what that wrote."""
        if name == "initial" or not self.prompts:
            return
        own = voice(self.task, model.to(device()))
        asked = self.prompts if own is self.task else self._translated(model)
        for row, made in zip(self.found, write(model, own, asked, NEW_TOKENS), strict=True):
            row[name] = own.tokenizer.decode(made, skip_special_tokens=True)
        self.watch.step(f"samples of {name}", len(asked), len(asked))

    def _translated(self, model: PreTrainedModel) -> list[list[int]]:
        """The prompts in the tokens, and for conversations the template, of a model with another tokenizer."""
        read = as_read_by(self.task, model, self.examples)
        tokenizer = voice(self.task, model).tokenizer
        return [
            _prompt(theirs)
            if example.asked
            else list(tokenizer(self.task.tokenizer.decode(prompt, skip_special_tokens=True))["input_ids"])
            for prompt, example, theirs in zip(self.prompts, self.examples, read, strict=True)
        ]


def _prompt(example: Example) -> list[int]:
    """Up to the first answer of a conversation; the beginning of a plain text."""
    return example.asked or example.input_ids[:PROMPT_TOKENS]


def classified(
    rows: Mapping[str, Rows],
    labels: list[str],
    examples: list[Example],
    texts: Sequence[str],
    count: int,
    said: Mapping[str, str] = {},
) -> list[dict[str, Any]]:
    """`count` held-out rows with each classifier's answer, some of each kind, those first on which most hangs.

    Of a kind those come first whose student is furthest from its teacher.

    Args: rows: model -> its statistics; said: row -> the answer of a teacher that is not among the models.
    """
    shown = {
        name: some
        for name, some in rows.items()
        if name in ("teacher", "student", "hard_only") and "pred" in some
    }
    student = shown["student"]
    mine = student["pred"].argmax(1)
    theirs = shown["teacher"]["pred"].argmax(1) if "teacher" in shown else mine
    truth = np.array([example.labels[0] for example in examples])
    apart = student.get("kl", -student.get("confidence", np.zeros(len(mine))))
    kinds = [_kind(int(a), int(b), int(t)) for a, b, t in zip(mine, theirs, truth, strict=True)]
    found = []
    for at in _dealt(_waiting(kinds, apart), count):
        row: dict[str, Any] = {
            "text": texts[at],
            "label": labels[truth[at]] if truth[at] >= 0 else None,
            "kind": kinds[at],
        }
        row |= {name: _answer(some, labels, at) for name, some in shown.items()}
        if examples[at].row in said:
            row["teacher"] = said[examples[at].row]
        found.append(row)
    return found


def answered(
    written: Mapping[str, Sequence[Mapping[str, Any]]], rows: Mapping[str, Rows], count: int
) -> list[dict[str, Any]]:
    """`count` held-out prompts with each language model's answer: some of each kind, where it is known who was right.

    Right is what passes the checker; without one, what is the data's answer word for word, if teacher or student has ever given
    that: of answers for which there are many good wordings, a match says nothing.  Of a kind those come first in whose words the
    teacher is most ahead.

    Args: written: model -> its answers to the same prompts; rows: model -> the statistics of these answers.
    """
    right = {name: some["passed" if "passed" in some else "exact"] == 1.0 for name, some in rows.items()}
    prompts = written["student"]
    told = "passed" in rows["student"] or any(right[name].any() for name in ("teacher", "student"))
    order = list(range(len(prompts)))[:count]
    kinds = [
        _kind(int(mine), int(theirs), 1)
        for mine, theirs in zip(right["student"], right["teacher"], strict=True)
    ]
    if told:
        ahead = rows["teacher"]["f1"] - rows["student"]["f1"]
        order = _dealt(_waiting(kinds, ahead), count)
    found = []
    for at in order:
        row = {key: prompts[at][key] for key in ("prompt", "reference")}
        row |= {name: some[at]["answer"] for name, some in written.items()}
        if told:
            row |= {"kind": kinds[at], "right": {name: bool(some[at]) for name, some in right.items()}}
        found.append(row)
    return found


def furthest_apart(rows: Rows, examples: list[Example], task: Task, count: int) -> list[dict[str, Any]]:
    """`count` places, one a text at most, at which a language model is furthest from its teacher, the furthest first.

    Args: rows: the student's statistics; nothing is found where its teacher's tokens could not be compared.
    Returns: [{"before", "teacher", "student": the token each would go on with, "teacher_share", "student_share", "kl"}];
        "before" is what stands there, as `_around` has it.
    """
    if "worst" not in rows:
        return []
    found = []
    for at in np.argsort(-rows["worst"][:, 1], kind="stable")[:count]:
        place, kl, *tops = rows["worst"][at]
        if place < 0:
            continue
        example = examples[at]
        counted = [n for n, label in enumerate(example.labels[1:]) if label != IGNORED]
        end = counted[int(place)] + 1
        decode = task.tokenizer.decode
        found.append(
            {
                "before": _around(example, end, task), "teacher": decode([int(tops[0])]),
                "student": decode([int(tops[1])]), "teacher_share": float(tops[2]), "student_share": float(tops[3]),
                "kl": float(kl),
            }
        )  # fmt: skip
    return found


def _around(example: Example, at: int, task: Task) -> str:
    """What stands before position `at`; on both sides of it where it is hidden; behind its source where that is read by an encoder."""
    decode, ids = task.tokenizer.decode, example.input_ids
    if task.redraws:
        side = PROMPT_TOKENS // 2
        left, right = ids[max(0, at - side) : at], ids[at + 1 : at + 1 + side]
        return f"{decode(left)} {HIDDEN} {decode(right)}"
    start = max(0, at - PROMPT_TOKENS, *(start for start in example.starts if start <= at))
    if task.name == "seq2seq":
        source = decode(ids[: example.starts[1]][:PROMPT_TOKENS], skip_special_tokens=True)
        return f"{source} → {decode(ids[start:at])}"
    return str(decode(ids[start:at]))


def _kind(student: int, teacher: int, truth: int) -> str:
    if truth < 0:
        return "both right" if student == teacher else "part"
    if teacher == truth:
        return "both right" if student == truth else "student fails"
    return "teacher fails" if student == truth else "both fail"


def _waiting(kinds: Sequence[str], first: "np.ndarray[Any, Any]") -> dict[str, list[int]]:
    """Kind -> its rows, those with the most of `first` before the others."""
    return {
        kind: sorted((at for at, each in enumerate(kinds) if each == kind), key=lambda at: (-first[at], at))
        for kind in KINDS
    }


def _dealt(waiting: dict[str, list[int]], count: int) -> list[int]:
    """One of each kind in turn until `count` are there, then sorted by kind."""
    taken: dict[str, list[int]] = {kind: [] for kind in waiting}
    left = count
    while left and any(len(taken[kind]) < len(rows) for kind, rows in waiting.items()):
        for kind, rows in waiting.items():
            if left and len(taken[kind]) < len(rows):
                taken[kind].append(rows[len(taken[kind])])
                left -= 1
    return [at for rows in taken.values() for at in rows]


def _answer(rows: Rows, labels: list[str], at: int) -> str:
    """ "positive (0.93)"; without its probability where that is not known."""
    best = int(rows["pred"][at].argmax())
    known = rows.get("log_probs")
    return labels[best] if known is None else f"{labels[best]} ({np.exp(known[at, best]):.2f})"
