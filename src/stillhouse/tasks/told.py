"""Class probabilities that somebody gave row by row, in a classifier's place: a member of a panel that was asked instead of run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..files import read_json, write_json
from ..losses import Head
from .base import Batch, Scores, Task

TOLD, LOG_P = "told.json", "log_p.safetensors"


class Told(nn.Module):
    """Looks up what was said of a row; of one that nobody spoke of it says that all classes are equally probable.

    Args: keys: of the examples; log_p: [keys, C].
    """

    def __init__(self, keys: Iterable[str], log_p: Tensor) -> None:
        super().__init__()
        self.log_p = nn.Parameter(log_p, requires_grad=False)  # moves with a model, as weights do
        self.places = {key: number for number, key in enumerate(keys)}

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def scores(self, task: Task, batch: Batch) -> Scores:
        """[B, C] log-probabilities as logits."""
        nothing = self.log_p.new_zeros((1, task.outcomes))
        at = [self.places.get(key, -1) for key in batch["keys"]]
        hidden = torch.cat([self.log_p, nothing])[at]
        rows = torch.arange(len(at), device=hidden.device)
        return Scores(hidden, Head(None, vocabulary=task.outcomes), batch["labels"], rows)


def write_told(folder: Path, shares: Mapping[str, Sequence[float]]) -> None:
    """Keep key of an example -> the probability of each class."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TOLD, {"keys": list(shares)})
    save_file(
        {"log_p": torch.tensor(list(shares.values()), dtype=torch.float64).log().float()}, folder / LOG_P
    )


def is_told(folder: Path) -> bool:
    """Whether `folder` holds what somebody said instead of a model."""
    return (folder / TOLD).is_file()


def load_told(folder: Path) -> Any:
    """What `write_told` wrote, ready for classification."""
    return Told(read_json(folder / TOLD)["keys"], load_file(folder / LOG_P)["log_p"]).eval()
