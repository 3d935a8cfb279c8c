"""What a Distiller does about a student that lies in pieces on several processes (FSDP2), and what it refuses there.

`TrainingArguments(fsdp=True)` is answered here, by torch's `fully_shard`: accelerate makes DDP of it on processors, without a
word, and knows no optimiser with projectors in it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from ..errors import RecipeError
from ..models.sharded import average_by_sums, is_sharded, shard
from ..models.taps import layers_of
from ..recipe import DeeperLayers, Term
from ..tasks import unwrap
from ..teachers.ema import Ema

UNSET = (None, False, 0, "", "false", "False")
"""What transformers writes into `fsdp_config` where nothing was asked for."""


def wanted(args: TrainingArguments, model: nn.Module, teacher: Any, terms: Sequence[Term]) -> bool | None:
    """Whether each layer is to be gathered again for the backward pass, if `args` ask for FSDP; None if they do not.

    Raises: RecipeError for what is not supported.
    """
    if fault := _fault_of_student(model, teacher, terms) or _fault_of_arguments(args):
        raise RecipeError(fault)
    if not args.fsdp or is_sharded(model):
        return None
    return str(args.fsdp_config.get("reshard_after_forward", True)).lower() != "false"


@contextmanager
def unheard(args: TrainingArguments) -> Iterator[None]:
    """While this is open `args` do not speak of FSDP, so that a Trainer that is made leaves it to us."""
    asked = args.fsdp, args.fsdp_plugin_args
    args.fsdp = args.fsdp_plugin_args = None
    try:
        yield
    finally:
        args.fsdp, args.fsdp_plugin_args = asked


def _fault_of_student(model: nn.Module, teacher: Any, terms: Sequence[Term]) -> str | None:
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        return "Distiller: FullyShardedDataParallel (FSDP1) is not supported; give the model itself and fsdp=True."
    cuts = [
        sum(not one.is_replicate() for one in parameter.placements)
        for parameter in model.parameters()
        if isinstance(parameter, DTensor)
    ]
    config = getattr(model, "config", None)
    if max(cuts, default=0) > 1 or getattr(config, "distributed_config", None) is not None:
        return "Distiller: a student that transformers distributes, or that is cut in two ways, is not supported; load it whole and set fsdp=True."
    if cuts and not is_sharded(model):
        return "Distiller: some of the student's weights lie in pieces, and it is not sharded itself; end with fully_shard(student)."
    if cuts and unwrap(model) is not model:
        return "Distiller: a student with adapters must come whole; set fsdp=True instead of sharding it."
    if cuts and isinstance(teacher, Ema):
        return "Distiller: the average begins as a copy of the student, which must come whole; set fsdp=True instead of sharding it."
    if cuts and any(isinstance(term, DeeperLayers) for term in terms):
        return "objective: deeper_layers calls the student's last norm itself, so it must come whole; set fsdp=True instead of sharding it."
    return None


def _fault_of_arguments(args: TrainingArguments) -> str | None:
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return "Distiller: FSDP as `accelerate launch` asks for it is not supported; start with torchrun, and set fsdp=True."
    if args.deepspeed or args.deepspeed_plugin is not None:  # the launcher's environment makes a plugin, too
        return "Distiller: DeepSpeed is not supported (the loss reads the head's weights itself); start with torchrun, and set fsdp=True for weights in pieces."
    if not args.fsdp:
        return None
    settings = args.fsdp_config or {}
    if int(settings.get("version", 2)) != 2:
        return "fsdp_config: version: FSDP1 is not supported; leave it out, for FSDP2."
    for name, value in settings.items():
        if name not in ("version", "reshard_after_forward") and value not in UNSET:
            return f"fsdp_config: {name} is not supported; leave it out (each layer is a part, and students are saved whole)."
    if args.world_size == 1:
        return "fsdp: there is one process; start several with torchrun, or leave it out."
    return None


def cut(model: nn.Module, free: bool | None, args: TrainingArguments) -> None:
    """Cut the student up, as `wanted`; None if who gave it has done so."""
    if free is not None:
        mesh = init_device_mesh(args.device.type, (args.world_size,))
        shard(model, layers_of(unwrap(model))[1], mesh, free)
    average_by_sums(model)


def refuse(trainer: Any, writes: bool) -> None:
    """Raises: RecipeError for what does not go with a student in pieces.  Args: writes: whether it writes rows itself."""
    args = trainer.args
    if OWNED not in vars(trainer):
        raise RecipeError(
            "fsdp: this transformers would wrap the student in DDP as well; install a newer one."
        )
    if writes:
        raise RecipeError(
            "rollouts: a sharded student cannot write, for processes would wait for each other; use DDP."
        )
    if args.load_best_model_at_end:
        raise RecipeError(
            "load_best_model_at_end: is not supported with a sharded student; leave it out, and take that checkpoint."
        )
    if unwrap(trainer.model) is not trainer.model and args.save_strategy != "no":
        raise RecipeError(
            "save_strategy: a sharded student with adapters cannot go on from a checkpoint; set 'no', and call save_model."
        )


OWNED = "is_distributed_loading_by_transformers"
"""The Trainer's word for a model that says itself how its gradients are added up, so that accelerate must not wrap it."""


@contextmanager
def gradients_kept(model: Any) -> Iterator[None]:
    """While this is open, gradients are not added up over processes yet."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
