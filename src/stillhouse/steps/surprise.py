"""A teacher's surprise at its own texts, by the log-probabilities that its API told: what a perfect student would reach."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ..asking import Answer
from ..data.encode import Example
from ..files import atomic
from ..tasks import Task
from ..teachers.said import Spell, behind_thoughts


def stands_alone(one: Example, task: Task, turns: int) -> bool:
    """Whether an example counts its answer whole, and nothing else: it is not cut, and no other turn is before it."""
    written = len(one.input_ids) - (one.starts[1] if task.name == "seq2seq" else 0)
    return turns == 1 and written < task.max_length


def keep_heard(path: Path, answers: Sequence[Answer], alone: Sequence[bool], spell: Spell) -> None:
    """Write the teacher's surprise at its own texts, in nats and bytes, where it gave log-probabilities of all that are counted.

    Args: alone: of each, whether what a student is measured on is that text; nothing is counted of the others.
    """
    nll, sizes = np.zeros((2, len(answers)))
    for at in np.flatnonzero(alone).tolist():
        said = behind_thoughts(answers[at], spell)
        if not said.tokens or any(token not in others for token, others in said.tokens):
            sizes[:] = 0.0
            break
        nll[at] = -sum(others[token] for token, others in said.tokens)
        sizes[at] = len(said.text.encode())
    with atomic(path) as part:
        save_file({"nll": nll, "bytes": sizes} if sizes.any() else {}, part)
