"""Checkpoints that are either whole or not there.

transformers.Trainer writes a checkpoint in place, file by file, with pickles among them: a kill in the middle leaves the
newest one unusable, and a flipped bit goes unnoticed.  Here a checkpoint is written to a temporary folder, flushed, given
a manifest of sizes and SHA-256 sums, and renamed; one whose manifest does not hold does not exist.  safetensors and JSON
only.

    model.safetensors, config.json, …   as save_pretrained writes them
    optimizer.safetensors               the optimiser's tensors, "<parameter>.<name>"
    optimizer.json                      its param_groups and plain numbers
    scheduler.json                      the learning-rate schedule
    trainer_state.json                  the Trainer's own state: step, epoch, log
    ranks.json                          how many processes trained together
    MANIFEST.json                       last
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import RecipeError
from ..files import MANIFEST, atomic_folder, manifest_fault, read_json, sweep_parts, write_json
from ..models.sharded import spread, whole

RANKS = "ranks.json"
_NAME = re.compile(r"checkpoint-(\d+)$")


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first, sound or not."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.search(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def newest_sound(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose manifest holds; damaged ones are named and passed over, and nothing is removed."""
    sweep_parts(folder)
    for path in reversed(all_checkpoints(folder)):
        fault = manifest_fault(path)
        if fault is None:
            return path
        say(f"{path.name} is damaged ({fault}); going back to the one before")
    return None


def write_checkpoint(
    target: Path,
    save_model: Callable[[str], None],
    save_state: Callable[[str], None],
    learned: dict[str, Any],
    scheduler: Any,
    ranks: int = 1,
) -> None:
    """Write one checkpoint whole.

    Args:
        save_model: writes the weights into a folder.
        save_state: writes the Trainer's state to a file.
        learned: `optimizer_state`.
        ranks: processes that train together.
    """
    with atomic_folder(target) as part:
        save_model(str(part))
        save_optimizer(part, learned)
        (part / "scheduler.json").write_text(json.dumps(scheduler.state_dict()), encoding="utf-8")
        save_state(str(part / "trainer_state.json"))
        write_json(part / RANKS, ranks)


def check_ranks(folder: Path, ranks: int) -> None:
    """Raises: RecipeError if another number of processes wrote it: their steps are made of other rows."""
    wrote = int(read_json(folder / RANKS)) if (folder / RANKS).exists() else 1
    if wrote != ranks:
        raise RecipeError(
            f"{folder}: was written by {wrote} processes that trained together, and now there are {ranks}; go on with as many, or "
            "begin anew (--fresh)."
        )


def rotate(folder: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` of those we wrote, once the newest is known to be sound; None keeps all."""
    found = [path for path in all_checkpoints(folder) if (path / MANIFEST).exists()]
    if keep and found and manifest_fault(found[-1]) is None:
        for path in found[:-keep]:
            shutil.rmtree(path)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer, scheduler: Any = None) -> None:
    """Put optimiser and schedule, if there is one, back to where `folder` left them."""
    saved = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {
        int(number): dict(values) for number, values in saved["state"].items()
    }
    with safe_open(folder / "optimizer.safetensors", framework="pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - not a dict
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = tensors.get_tensor(key)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state.items():
        own = parameters[number]
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == own.shape:
                values[name] = spread(value, own)
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    if scheduler is not None:
        scheduler.load_state_dict(read_json(folder / "scheduler.json"))


def optimizer_state(optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, Any]:
    """Its state dict with every tensor in one piece, for `save_optimizer`.

    All processes must ask; one that does not `keep` it helps the others to theirs.
    """
    own = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for number, values in own["state"].items():
        for name, value in values.items():
            found = whole(value) if isinstance(value, torch.Tensor) else value
            if keep:  # off the accelerator, if it was gathered from pieces
                state.setdefault(number, {})[name] = found if found is value else found.cpu()
    return {"state": state, "param_groups": own["param_groups"]}


def save_optimizer(folder: Path, learned: dict[str, Any]) -> None:
    """optimizer.safetensors and optimizer.json, from `optimizer_state`."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in learned["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number}.{name}"] = value.detach().contiguous()
            else:
                plain.setdefault(str(number), {})[name] = value
    save_file(tensors, folder / "optimizer.safetensors")
    text = json.dumps({"state": plain, "param_groups": learned["param_groups"]})
    (folder / "optimizer.json").write_text(text, encoding="utf-8")
