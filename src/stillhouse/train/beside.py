"""What learns beside the student and never becomes part of it: projectors, and heads of its earlier layers."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Beside(nn.Module):
    """Parameters with a file of their own in each checkpoint."""

    file: str

    def save(self, folder: Path) -> None:
        """The parameters, as safetensors, if there are any."""
        if found := self.state_dict():
            save_file({name: value.contiguous() for name, value in found.items()}, folder / self.file)

    def restore(self, folder: Path) -> None:
        """What `save` wrote."""
        if self.state_dict():
            self.load_state_dict(load_file(folder / self.file))


def tend(learned: list[nn.Parameter], ranks: int, longest: float) -> None:
    """Before a step: the mean of the gradients over ranks, as DDP makes it for the student, and no longer than `longest` (0 =
    as long as they are).  The Trainer and DDP look after the student's gradients alone.
    """
    for parameter in learned:
        if ranks > 1 and parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad.div_(ranks)
    if longest:
        nn.utils.clip_grad_norm_(learned, longest)


def forget(learned: list[nn.Parameter]) -> None:
    """After a step: no gradients."""
    for parameter in learned:
        parameter.grad = None
