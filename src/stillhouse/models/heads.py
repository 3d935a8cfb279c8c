"""The hidden states that a language model hands to its head, in the place of logits, and what the head makes of them.

By hooks on the head, so that any transformers model works, wrapped by DDP or FSDP or not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError
from ..losses import Head
from .adapted import head_product
from .sharded import whole


@contextmanager
def hidden_at_head(model: PreTrainedModel, sharded: bool = False) -> Iterator[list[Tensor]]:
    """While this is open, each forward pass leaves its last hidden states [B, T, H] in the list, and no logits are made.

    The head is handed an empty slice, so its matrix product costs nothing; callers project the positions that count.
    The forward pass itself is the wrapper's, so DDP and FSDP see every call.

    Args: sharded: the empty logits hang on the hidden states, but not on the head's weight, for which a backward pass through
        them would make a gradient of zeros, as large as the weight (see `seen_by_wrapper`).
    """
    caught: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        caught.append(args[0])
        return (args[0][:, :0], *args[1:])

    def cut_off(_: nn.Module, args: tuple[Any, ...], logits: Tensor) -> Tensor:
        hidden: Tensor = args[0]
        return logits.detach() + hidden.sum(-1, keepdim=True)

    head = model.get_output_embeddings()
    handles = [head.register_forward_pre_hook(take)]
    if sharded:
        handles.append(head.register_forward_hook(cut_off, prepend=True))  # before FSDP's own
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def seen_by_wrapper(hidden: Tensor, logits: Tensor) -> Tensor:
    """The same hidden states, whose gradient also reaches the (empty) logits that the wrapper handed on.

    FSDP prepares a backward pass, and ends it by adding up what its root has, when a gradient reaches the root's output.  A
    loss that only used what was caught inside would leave the root's gradients where they are, without a word.
    """
    return hidden + logits.sum().to(hidden.dtype)


def language_head(model: PreTrainedModel, vocabulary: int) -> Head:
    """The head of a language model, with what its family does to the logits after the product.

    `vocabulary`: the tokenizer's real size; the padded rows beyond it are left out.  Where FSDP has cut the head up again after
    its forward pass, it is gathered here, by all processes.
    """
    module = model.get_output_embeddings()
    weight, bias = head_product(model, module)
    if weight is None:
        raise RecipeError(
            f"{type(model).__name__} has no linear head over its vocabulary; it is not a language model."
        )
    added = dict(model.named_buffers(recurse=False)).get(
        "final_logits_bias"
    )  # BART and its relatives, [1, V]
    if added is not None:
        bias = added[0] if bias is None else bias + added[0]
    weight, bias = whole(weight), None if bias is None else whole(bias)
    config = model.config.get_text_config().to_dict()
    family = str(config.get("model_type"))
    scale = 1.0
    for name in SCALES:
        factor = float(config.get(name) or 1.0)
        divides = name == "logits_scaling" and not family.startswith(MULTIPLY)
        scale = scale / factor if divides else scale * factor
    softcap = next((float(config[name]) for name in SOFTCAPS if config.get(name)), None)
    return Head(weight, bias, min(vocabulary, weight.shape[0]), scale, softcap)


SCALES = ("logit_scale", "lm_head_multiplier", "logits_scaling")
"""What families call the factor on their logits (Cohere, Falcon-H1, Granite, which divides)."""
MULTIPLY = ("hyperclovax",)
"""Families that multiply by what Granite divides by."""
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What families call the c of c·tanh(logits / c) (Gemma, RecurrentGemma, xLSTM)."""


def tokens_read(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Tokens under the names by which a forward pass takes them: an encoder–decoder reads the same ones on both sides."""
    names = ("input_ids", "decoder_input_ids") if model.config.is_encoder_decoder else ("input_ids",)
    return dict.fromkeys(names, ids)


@torch.no_grad()
def verify_head(model: PreTrainedModel, vocabulary: int) -> None:
    """Compare our head with the model's own logits on four tokens.  Raises: RecipeError if they differ.

    Families treat logits in their own ways (scales, soft caps); one we do not know must not train on a wrong loss.  Logits are
    compared as they are and as loud ones: a cap does nothing to the small logits of a model that has learned nothing yet.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(1, 5, device=model.device).unsqueeze(0) % vocabulary
    read = tokens_read(model, ids)
    with hidden_at_head(model) as caught:
        model(**read, use_cache=False)
    head = language_head(model, vocabulary)
    if not caught or head.weight is None or caught[-1].shape[-1] != head.weight.shape[-1]:
        raise RecipeError(
            f"{type(model).__name__} makes its logits in a way that is not known here; name a model of another family."
        )
    plain = head.logits(caught[-1][0])
    for factor in (1.0, max(1.0, LOUD / float(plain.abs().max().clamp_min(1e-6)))):
        with _at_head(model, factor):
            theirs = model(**read, use_cache=False).logits[0, :, :vocabulary].float()
        ours = language_head(model, vocabulary).logits(caught[-1][0] * factor)
        if ours.shape != theirs.shape:
            raise RecipeError(
                f"{type(model).__name__} makes its logits in a way that is not known here; name a model of another family."
            )
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max())):
            raise RecipeError(
                f"{type(model).__name__} treats its logits in a way that is not known here (they differ by up to "
                f"{float((ours - theirs).abs().max()):.3g}); please report it with the model's config.json."
            )
    model.train(was_training)


LOUD = 200.0
"""Largest logit of the second comparison, beyond what any family caps at."""


@contextmanager
def _at_head(model: PreTrainedModel, factor: float) -> Iterator[None]:
    """While this is open, the head reads hidden states `factor` times as large."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: (args[0] * factor, *args[1:]))
    try:
        yield
    finally:
        handle.remove()
