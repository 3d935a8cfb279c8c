"""What models do.  The rest of the code asks the task, and never the model's name.

A task turns rows into examples, examples into batches, and a model's reading of a batch into `Scores`: what it says at
the positions that count.  One file a task; add it to TASKS and to `Recipe.task`.
"""

from typing import Any

from transformers import PreTrainedTokenizerBase

from ..registry import pick
from .base import Batch, Layout, Scores, Task, Written, foretold, on_device, unwrap

TASKS = {
    "causal_lm": "stillhouse.tasks.causal_lm:CausalLM",
    "seq2seq": "stillhouse.tasks.seq2seq:Seq2Seq",
    "classification": "stillhouse.tasks.classification:Classification",
    "masked_lm": "stillhouse.tasks.masked_lm:MaskedLM",
}


def make_task(
    kind: str, tokenizer: PreTrainedTokenizerBase, max_length: int = 256, labels: list[str] | None = None
) -> Task:
    """The task of that kind.

    Args:
        tokenizer: of the teacher and the student alike.
        max_length: tokens in a row, at most.
        labels: of a classifier, in the order of its outputs.
    """
    made: Any = pick(TASKS, kind, "task")(tokenizer, max_length, labels or [])
    task: Task = made
    return task


__all__ = [
    "TASKS",
    "Batch",
    "Layout",
    "Scores",
    "Task",
    "Written",
    "foretold",
    "make_task",
    "on_device",
    "unwrap",
]
