"""The product of a head that PEFT has wrapped: losses taken in chunks multiply with its weight, and never call the module."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError

ADAPTER = "an adapter on the head"


def head_product(model: PreTrainedModel, module: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a head; of one with an adapter what it amounts to, with gradients into the adapter: W + s·BA for
    LoRA, W + its product for LoHa and LoKr, each row of W times its factor for IA³.

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
    bias = base.bias
    for name in active:
        if not any(name in vars(wrapped)["_modules"].get(part, ()) for part in wrapped.adapter_layer_names):
            continue  # another adapter of the model, which leaves the head out
        kind = wrapped.adapter_layer_names[0]
        _check(model, wrapped, name, kind)
        if kind == "ia3_l":
            factor = wrapped.ia3_l[name]  # [V, 1], or [1, H] where it is of the inputs
            weight = weight * factor
            bias = bias if bias is None or wrapped.is_feedforward else bias * factor.flatten()
        else:
            weight = weight + wrapped.get_delta_weight(name)
    return weight, bias


ADDED = ("lora_A", "hada_w1_a", "lokr_w1")
"""First parameter of the adapters whose product is added to the weight: LoRA, LoHa, LoKr."""


def _check(model: PreTrainedModel, wrapped: Any, name: str, kind: str) -> None:
    if model.config.get_text_config().tie_word_embeddings:
        raise RecipeError(
            f"{ADAPTER}: this model's head is its embeddings, so adding the one in would change the other; leave the head out."
        )
    if kind != "ia3_l" and kind not in ADDED:
        raise RecipeError(
            f"{ADAPTER}: {type(wrapped).__module__.split('.')[-2]} is not supported there, where losses are taken in chunks; use "
            "LoRA, LoHa, LoKr or IA³, or leave the head out."
        )
    if kind == "lora_A" and name in wrapped.lora_variant:
        variant = type(wrapped.lora_variant[name]).__name__.removesuffix("LinearVariant")
        raise RecipeError(
            f"{ADAPTER}: {variant} is not supported there, where losses are taken in chunks; use plain LoRA, or leave the head out."
        )
    if wrapped.training and _dropout(wrapped, name, kind) > 0:
        raise RecipeError(
            f"{ADAPTER}: has no dropout, where losses are taken in chunks; set it to 0, or leave the head out."
        )


def _dropout(wrapped: Any, name: str, kind: str) -> float:
    """What share of it is dropped in training."""
    if kind == "lora_A":
        return float(getattr(wrapped.lora_dropout[name], "p", 0.0))
    if kind == "ia3_l":
        return 0.0
    return float(max(wrapped.rank_dropout[name], wrapped.module_dropout[name]))
