"""A model on this machine as the teacher."""

import torch
from torch import nn

from ..losses import topk_log_probs
from ..losses.fused import chunks
from ..tasks import Batch, Task
from .targets import Dense, TopK


class LocalTeacher:
    """Runs beside the student: in eval mode, without gradients, whatever else happens to it."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        self.model, self.task = model, task
        model.requires_grad_(False)

    @torch.no_grad()
    def signal(self, batch: Batch) -> Dense:
        """Everything the teacher thinks; its logits are projected when a loss asks for them."""
        self.model.eval()
        scores = self.task.scores(self.model, batch)
        return Dense(scores.hidden, scores.head.detached().float())

    @torch.no_grad()
    def topk(self, batch: Batch, k: int, temperature: float) -> TopK:
        """The K best of it, for keeping."""
        dense = self.signal(batch)
        ids, log_p = [], []
        for positions in chunks(len(dense), self.task.outcomes):
            best, values = topk_log_probs(dense.logits(positions), k, temperature=temperature)
            ids.append(best)
            log_p.append(values)
        width = min(k, self.task.outcomes)
        if not ids:
            empty = dense.hidden.new_zeros((0, width))
            return TopK(empty.long(), empty.float(), temperature)
        return TopK(torch.cat(ids), torch.cat(log_p), temperature)
