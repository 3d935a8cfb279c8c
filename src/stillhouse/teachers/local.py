"""A model on this machine as the teacher."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ..losses import draw_sampled, topk_log_probs
from ..models.taps import tapped
from ..tasks import Batch, Task, unwrap
from .targets import Dense, Sampled, TopK, widened


class LocalTeacher:
    """Runs beside the student: in eval mode, without gradients, whatever else happens to it."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        self.model, self.task = model, task
        model.requires_grad_(False)

    @property
    def place(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def signal(self, batch: Batch, points: Sequence[str] = ()) -> Dense:
        """Everything the teacher thinks; its logits are projected when a loss asks for them.

        Args: points: what of its layers to hand on as well (see `models.taps.tapped`).
        """
        self.model.eval()
        with ExitStack() as taps:
            # what was asked instead of run has no layers
            features = taps.enter_context(tapped(unwrap(self.model), points)) if points else {}
            scores = self.task.scores(self.model, batch)
        return Dense(scores.hidden, scores.head.detached().float(scores.hidden), features)

    @torch.no_grad()
    def topk(self, batch: Batch, k: int, temperature: float) -> TopK:
        """The K best of it, for keeping."""
        dense = self.signal(batch).at(temperature)
        found = [topk_log_probs(logits, k, temperature=temperature) for _, logits in dense.each()]
        if not found:
            empty = dense.hidden.new_zeros((0, min(k, self.task.outcomes)))
            return TopK(empty.long(), empty.float(), temperature)
        return TopK(
            torch.cat([ids for ids, _ in found]), torch.cat([log_p for _, log_p in found]), temperature
        )

    @torch.no_grad()
    def sampled(self, batch: Batch, uniform: Tensor, draws: int, temperature: float) -> Sampled:
        """What `draws` draws leave of each position, for keeping (see `losses.sparse.draw_sampled`).

        Args: uniform: [N], in [0, 1): one number for each position decides its draws.
        """
        dense = self.signal(batch).at(temperature)
        drawn = [
            draw_sampled(logits, uniform[positions], draws, temperature=temperature)
            for positions, logits in dense.each()
        ]
        if not drawn:
            empty = dense.hidden.new_zeros((0, 1)).float()
            return Sampled(empty.long(), empty, empty[:, 0], temperature)
        width = max(ids.shape[1] for ids, *_ in drawn)
        ids, shares = (torch.cat([widened(part[which], width) for part in drawn]) for which in (0, 1))
        return Sampled(ids, shares, torch.cat([entropy for *_, entropy in drawn]), temperature)
