"""How sure the teacher is of each training row; `data.filter.min_confidence`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.encode import IGNORED, Example
from ..losses import log_softmax
from ..losses.fused import chunks
from ..models.machine import device
from ..progress import Watch
from ..tasks import Task, on_device
from ..teachers import TopK
from ..teachers.cache import SoftTargetCache
from ..teachers.local import LocalTeacher

UNSURE = "teacher unsure"
"""Why a row is left out."""


def least_confidence(recipe: Any) -> float | None:
    """What `data.filter` asks for; None if nothing."""
    least: float | None = None if recipe.data.filter is None else recipe.data.filter.min_confidence
    return least


def sure(
    examples: list[Example], least: float, found: Mapping[str, float], task: Task
) -> tuple[list[Example], list[dict[str, Any]]]:
    """(the examples of which the teacher is sure, the others as dropped rows with their confidence).

    Args: found: of `confidences` or `kept_confidences`.
    """
    kept = [example for example in examples if found[example.key] >= least]
    dropped = [
        {
            "where": f"row {example.row}",
            "reason": UNSURE,
            "confidence": round(found[example.key], 4),
            "text": str(task.tokenizer.decode(example.input_ids)),
        }
        for example in examples
        if found[example.key] < least
    ]
    return kept, dropped


def kept_confidences(examples: list[Example], cache: SoftTargetCache) -> dict[str, float]:
    """The same as `confidences`, of a classifier's rows whose whole distributions at temperature 1 lie in `cache`."""
    found: dict[str, float] = {}
    for example in examples:
        kept = cache.get(example.key)
        assert isinstance(kept, TopK)
        (log_p,), own = kept.log_p, kept.ids[0] == example.labels[0]
        found[example.key] = float(log_p[own].exp() if example.labels[0] >= 0 else log_p.max().exp())
    return found


@torch.no_grad()
def confidences(
    examples: list[Example],
    task: Task,
    teacher: Path,
    batch_size: int,
    watch: Watch,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Example key -> the geometric mean of the teacher's probabilities of the counted tokens, or, for a classifier's row, of
    its label, or of the favourite label where it has none."""
    local = LocalTeacher(task.load(teacher, dtype).to(device()), task)
    ordered = sorted(examples, key=lambda example: -len(example.input_ids))
    found: dict[str, float] = {}
    for start in range(0, len(ordered), batch_size):
        batch = on_device(task.collate(ordered[start : start + batch_size]))
        scores = task.scores(local.model, batch)
        log_p = []
        for at in chunks(len(scores.labels), task.outcomes, scores.hidden.device):
            all_of_them = log_softmax(scores.head.logits(scores.hidden[at]))
            labels = scores.labels[at]
            own = all_of_them.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
            log_p.append(torch.where(labels == IGNORED, all_of_them.max(-1).values, own))
        joined = torch.cat(log_p).double().cpu()
        rows = scores.rows.cpu()
        for number, example in enumerate(ordered[start : start + batch_size]):
            found[example.key] = float(joined[rows == number].mean().exp())
        watch.step("confidence", min(start + batch_size, len(ordered)), len(ordered))
    return found
