"""More and more weights are zero: by magnitude, on a cubic schedule.

Share of zeros at a share p of all steps, reached at `until`:   amount · (1 − (1 − min(1, p / until))³)

Source: Zhu & Gupta 2017, arXiv:1710.01878.  2:4 (Mishra et al. 2021, arXiv:2104.08378) gets there by groups of four
neighbours, those that lose least first; in the end each has at most two numbers that are not zero.

What is zero is a function of the weights and the step alone, so a run that was stopped goes on as if it had not been.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..recipe import Sparsity

EVERY = 10
"""Steps between looks at which weights are the smallest; in between, those that are zero stay zero."""


def share_at(wanted: Sparsity, progress: float) -> float:
    """Share of zeros at this share of all steps."""
    left = 1.0 - min(1.0, progress / wanted.until)
    return wanted.amount * (1.0 - left**3)


def mask_of(weight: Tensor, share: float, pattern: str) -> Tensor:
    """[out, in], true where a weight stays, with that share of zeros in the whole matrix."""
    if pattern == "2:4":
        return _two_of_four(weight, share)
    gone = round(share * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    if gone:
        mask[weight.abs().flatten().topk(gone, largest=False).indices] = False
    return mask.view_as(weight)


def _two_of_four(weight: Tensor, share: float) -> Tensor:
    sizes = weight.abs().reshape(len(weight), -1, 4)
    smallest = sizes.topk(2, dim=-1, largest=False)
    mask = torch.ones_like(sizes, dtype=torch.bool)
    mask.scatter_(-1, smallest.indices, False)
    lost = smallest.values.square().sum(-1).flatten()
    groups = round(2.0 * share * len(lost))
    untouched = torch.ones(len(lost), dtype=torch.bool, device=weight.device)
    if groups:
        untouched[lost.topk(groups, largest=False).indices] = False
    return (mask | untouched.view(sizes.shape[:2]).unsqueeze(-1)).view_as(weight)


class Sparsifying(TrainerCallback):
    """Zeroes weights after each step.

    Args: weights: gives the matrices, where they are at that moment.
    """

    def __init__(self, wanted: Sparsity, weights: Callable[[], Sequence[Tensor]]) -> None:
        self.wanted, self.weights = wanted, weights
        self._masks: list[Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """What a checkpoint left zero stays zero."""
        self._masks = [weight != 0 for weight in self.weights()] if state.global_step else []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Before a checkpoint of this step is written."""
        weights = self.weights()
        if state.global_step % EVERY == 0 or state.global_step == state.max_steps or not self._masks:
            share = share_at(self.wanted, state.global_step / max(1, state.max_steps))
            self._masks = [mask_of(weight, share, self.wanted.pattern) for weight in weights]
        for weight, mask in zip(weights, self._masks, strict=True):
            weight.mul_(mask)
