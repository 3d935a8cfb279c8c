"""How sure the teacher is of each training row; `data.filter.min_confidence`."""

from pathlib import Path
from typing import Any

import torch

from ..data.encode import IGNORED, Example
from ..losses import log_softmax
from ..losses.fused import chunks
from ..models.machine import device
from ..progress import Watch
from ..tasks import Task, on_device
from ..teachers.local import LocalTeacher


def sure(
    examples: list[Example], least: float, task: Task, teacher: Path, batch_size: int, watch: Watch
) -> tuple[list[Example], list[dict[str, Any]]]:
    """(the examples that the teacher is sure of, the others as dropped rows with their confidence)."""
    found = confidences(examples, task, teacher, batch_size, watch)
    kept = [example for example in examples if found[example.key] >= least]
    dropped = [
        {
            "where": f"row {example.row}",
            "reason": "teacher unsure",
            "confidence": round(found[example.key], 4),
            "text": str(task.tokenizer.decode(example.input_ids)),
        }
        for example in examples
        if found[example.key] < least
    ]
    return kept, dropped


@torch.no_grad()
def confidences(
    examples: list[Example], task: Task, teacher: Path, batch_size: int, watch: Watch
) -> dict[str, float]:
    """Example key -> the geometric mean of the teacher's probabilities of the counted tokens, or, for a classifier's row, of
    its label, or of the favourite label where it has none."""
    local = LocalTeacher(task.load(teacher).to(device()), task)
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
