"""The student's own past as its teacher: an exponential moving average of its weights.

Source: Tarvainen & Valpola 2017 (Mean Teacher), arXiv:1703.01780.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from ..models.sharded import whole
from ..tasks import Task
from .local import LocalTeacher

WEIGHTS = "ema.safetensors"


@dataclass(frozen=True)
class Ema:
    """Asks a Distiller for such a teacher: `Distiller(teacher=Ema(0.99))`."""

    decay: float = 0.99
    """Share of the average that stays at each step; 1 is the student as it began."""


class EmaTeacher(LocalTeacher):
    """A copy of the student that follows it slowly, without its dropout and without gradients."""

    def __init__(self, student: PreTrainedModel, task: Task, decay: float) -> None:
        super().__init__(copy.deepcopy(student).eval(), task)
        self.decay = decay

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """After each step of the student's."""
        for mine, theirs in zip(self.model.parameters(), student.parameters(), strict=True):
            mine.lerp_(whole(theirs).detach().to(mine.dtype), 1.0 - self.decay)
        for kept, own in zip(self.model.buffers(), student.buffers(), strict=True):
            kept.copy_(own)

    def save(self, folder: Path) -> None:
        """For a checkpoint; by place, since tied weights share a name."""
        save_file(
            {str(n): p.detach().contiguous() for n, p in enumerate(self.model.parameters())}, folder / WEIGHTS
        )

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """What `save` wrote."""
        saved = load_file(folder / WEIGHTS)
        for number, parameter in enumerate(self.model.parameters()):
            parameter.copy_(saved[str(number)])
