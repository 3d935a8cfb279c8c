"""What a teacher says, in the forms that the terms of an objective know."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses import Head


@dataclass(frozen=True)
class Dense:
    """All the teacher's logits, projected chunk by chunk when a loss asks for them."""

    hidden: Tensor
    """[N, H]"""
    head: Head

    def logits(self, positions: slice) -> Tensor:
        """[n, V], float32 throughout: bfloat16 logits have only 3 digits, and kept targets are float32 too."""
        return self.head.logits(self.hidden[positions], torch.float32)

    def __len__(self) -> int:
        return self.hidden.shape[0]


@dataclass(frozen=True)
class TopK:
    """The K largest log-probabilities over the whole vocabulary, taken at one temperature."""

    ids: Tensor
    """[N, K]"""
    log_p: Tensor
    """[N, K], most probable first."""
    temperature: float

    def __len__(self) -> int:
        return self.ids.shape[0]


SoftTargets = Dense | TopK
