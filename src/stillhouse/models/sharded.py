"""Models whose weights lie in pieces on several processes: FSDP2, torch's `fully_shard`.

Between the passes of its module a weight is a DTensor, of which each process has its piece; in them it is whole.  What the root
has itself stays whole from the forward pass to the end of the backward pass, and with it the head that losses multiply by.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from ..errors import RecipeError


def is_sharded(model: nn.Module) -> bool:
    """Whether its weights lie in pieces."""
    return isinstance(model, FSDPModule)


def shard(model: nn.Module, layers: Iterable[nn.Module], mesh: DeviceMesh, free: bool) -> None:
    """Cut up each layer, and what is left: embeddings, the last norm and the head, tied or not.

    Args: free: whether a layer's weights are gathered again for the backward pass, instead of kept since the forward pass.
    """
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=free)
    fully_shard(model, mesh=mesh)


def average_by_sums(model: nn.Module) -> None:
    """Let gradients be added up and then divided: some gloo adds where it is asked for a mean, without a word.

    pytorch/pytorch#162338; the one of torch 2.13 takes means.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)


def cut_again(model: nn.Module) -> None:
    """Let go of weights that a forward pass without gradients has left whole: they are copies, and who learns them learns nothing."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Tensor) -> Tensor:
    """A weight in one piece, on every process; one that is in one piece comes as it is.  All must ask, in the same order.

    Its gradient goes back to the pieces as the mean over processes, which is what FSDP makes of all others.
    """
    if not isinstance(value, DTensor):
        return value
    mesh = value.device_mesh
    full: Tensor = value.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if full.requires_grad:
        full.register_hook(lambda gradient: gradient / mesh.size())  # type: ignore[no-untyped-call]
    return full


def spread(value: Tensor, like: Tensor) -> Tensor:
    """What all processes have in one piece, in pieces where `like` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def whole_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Its state dict in one piece, on the processor.  All must ask; only who wants to `keep` it gets something.

    Tied weights stay one tensor with two names, which is how `save_pretrained` knows them.
    """
    gathered: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in gathered:
            full = whole(value).detach()
            gathered[id(value)] = full.cpu() if keep else full.new_empty(0)
        found[name] = gathered[id(value)]
    return found if keep else {}


@torch.no_grad()
def load_whole(model: nn.Module, folder: Path) -> None:
    """Weights that a checkpoint has in one piece.  Raises: RecipeError for one that has another name in the model."""
    own: dict[str, Any] = model.state_dict()
    for file in sorted(folder.glob("model*.safetensors")):
        for name, value in load_file(file).items():
            if name not in own:
                raise RecipeError(
                    f"{file}: {name} has another name in a sharded student; go on without fsdp."
                )
            own[name].copy_(spread(value, own[name]))
