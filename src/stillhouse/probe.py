"""A quick look at models: per-row statistics without a whole evaluation.

For what chooses (a trial of a search, the rows of the next round) and for what is no single model (an ensemble).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from .data.batches import in_order, like_lengths
from .data.encode import Example
from .losses import Head
from .measure import Rows
from .models.machine import device
from .progress import Watch
from .tasks import Batch, Scores, Task, on_device


@torch.no_grad()
def look(
    folders: Sequence[Path],
    task: Task,
    examples: list[Example],
    batch_size: int,
    watch: Watch,
    teacher: Path | None = None,
) -> Rows:
    """Per-row statistics of the model in `folders`, or of several, their probabilities averaged.

    Without a `teacher` the columns `agree` and `kl` compare the model with itself, and mean nothing.
    """
    models = [task.load(folder).to(device()).eval() for folder in folders]
    knows = task.load(teacher).to(device()).eval() if teacher is not None else None
    parts: list[dict[str, torch.Tensor]] = []
    batches, read = like_lengths(examples, batch_size), 0
    for places in batches:
        some = [examples[at] for at in places]
        batch = on_device(task.collate(some))
        mine = together(models, task, batch)
        parts.append(task.statistics(mine, task.scores(knows, batch) if knows else mine, some))
        read += len(some)
        watch.step("reads", read, len(examples))
    return {name: column.astype(np.float64) for name, column in in_order(parts, batches).items()}


def together(models: Sequence[PreTrainedModel], task: Task, batch: Batch) -> Scores:
    """One model's scores; or the logarithm of several models' mean probabilities, as logits [N, V]."""
    scores = [task.scores(model, batch) for model in models]
    if len(scores) == 1:
        return scores[0]
    log_q = torch.stack([one.head.logits(one.hidden).float().log_softmax(-1) for one in scores])
    mean = log_q.logsumexp(0) - math.log(len(scores))
    return Scores(mean, Head(None, vocabulary=task.outcomes), scores[0].labels, scores[0].rows)
