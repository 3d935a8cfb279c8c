"""The product of a head that PEFT has wrapped: losses taken in chunks multiply with its weight, and never call the module."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError

ADAPTER = "an adapter on the head"


def head_product(model: PreTrainedModel, module: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a head; of one with LoRA beside it the sum W + s·BA, with gradients into A and B.

    Returns: (None, None) for what is no linear head.
    Raises: RecipeError for an adapter that such a sum does not stand for.
    """
    wrapped: Any = module
    if isinstance(
        getattr(wrapped, "modules_to_save", None), nn.ModuleDict
    ):  # trained whole beside the adapters
        wrapped = wrapped.modules_to_save[wrapped.active_adapters[0]]
    if isinstance(wrapped, nn.Linear):
        return wrapped.weight, wrapped.bias
    base: Any = getattr(wrapped, "base_layer", None)
    if not isinstance(base, nn.Linear):
        return None, None
    active = [] if wrapped.disable_adapters or wrapped.merged else wrapped.active_adapters
    weight: Tensor = base.weight
    for name in [one for one in active if one in wrapped.lora_A]:
        _check(model, wrapped, name)
        weight = weight + wrapped.get_delta_weight(name)
    return weight, base.bias


def _check(model: PreTrainedModel, wrapped: Any, name: str) -> None:
    if model.config.get_text_config().tie_word_embeddings:
        raise RecipeError(
            f"{ADAPTER}: this model's head is its embeddings, so adding the one in would change the other; leave the head out."
        )
    if name in wrapped.lora_variant:
        kind = type(wrapped.lora_variant[name]).__name__.removesuffix("LinearVariant")
        raise RecipeError(
            f"{ADAPTER}: {kind} is not supported there, where losses are taken in chunks; use plain LoRA, or leave the head out."
        )
    if wrapped.training and getattr(wrapped.lora_dropout[name], "p", 0.0) > 0:
        raise RecipeError(
            f"{ADAPTER}: has no dropout, where losses are taken in chunks; set it to 0, or leave the head out."
        )
