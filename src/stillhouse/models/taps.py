"""Reading a model from the inside: the hidden states it hands to its head, and what its layers pass on.

By hooks on the modules, so that any transformers model works, wrapped by DDP or not, and with fused attention on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

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


def layers_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """(dotted name, list) of the model's layers.  Raises: RecipeError if there is no one such list."""
    if model.config.is_encoder_decoder:
        raise RecipeError(
            f"{type(model).__name__} is an encoder–decoder, whose two lists of layers are not told apart here: it is cut only if its "
            "family is in models/shrink/families.py (else use from_config), never compared layer by layer, and never sharded (use DDP)."
        )
    count = model.config.get_text_config().num_hidden_layers
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise RecipeError(
            f"{type(model).__name__}: found {len(found)} lists of {count} layers where one was expected; "
            "give the student as a model or a config instead of from_teacher."
        )
    return found[0]


NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm")
"""What families call the norm between their last layer and their head."""


@torch.no_grad()
def final_norm(model: PreTrainedModel) -> nn.Module:
    """What a language model does to its last layer's output before the head reads it.

    Raises: RecipeError if what is found, tried out on four tokens, does not make the one of the other.
    """
    name, layers = layers_of(model)
    around = model.get_submodule(name.rpartition(".")[0]).named_children()
    found = next((module for child, module in around if child in NORMS), nn.Identity())
    last, was_training = f"hidden.{len(layers)}", model.training
    model.eval()
    ids = torch.arange(1, 5, device=model.device).unsqueeze(0)
    with tapped(model, [last]) as own, hidden_at_head(model) as caught:
        model(input_ids=ids, use_cache=False)
    model.train(was_training)
    if last not in own or not torch.allclose(found(own[last]), caught[-1], rtol=1e-2, atol=1e-3):
        raise RecipeError(
            f"objective: deeper_layers: what {type(model).__name__} does between its last layer and its head is not known here; "
            "remove the term."
        )
    return found


@torch.no_grad()
def block_influence(model: PreTrainedModel, batches: Iterator[tuple[dict[str, Tensor], Tensor]]) -> Tensor:
    """How much each layer turns the hidden state: 1 − the mean cosine of its input and its output.

    Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853, equation 1.

    Args: batches of (model inputs, mask [B, T] of the positions that count).
    Returns: [layers], between 0 (the layer passes its input on) and 2.
    """
    _, layers = layers_of(model)
    sums, count = torch.zeros(len(layers), dtype=torch.float64), 0
    mask = torch.empty(0)

    def compare(number: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1)
            sums[number] += (1.0 - cosine[mask]).sum().double().cpu()

        return hook

    handles = [layer.register_forward_hook(compare(n), with_kwargs=True) for n, layer in enumerate(layers)]
    try:
        for inputs, mask in batches:
            count += int(mask.sum())
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return sums / max(count, 1)


@contextmanager
def tapped(model: PreTrainedModel, points: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While this is open, a forward pass leaves what its layers hand on in the dict, by point.

    Points, layers counted from 1:
        hidden.N            [B, T, H], the output of layer N; hidden.0 is what the first layer reads, the embeddings
        attention.N         [B, h, T, T], if attention is written out (see `AttentionMaps`)
        q.N, k.N, v.N       [B, T, width], queries, keys and values before any rotation

    Raises: RecipeError for a layer that is not there, or a family whose parts have other names.
    """
    caught: dict[str, Tensor] = {}
    layers = layers_of(model)[1] if points else nn.ModuleList()
    config = model.config.get_text_config()
    handles = [handle for point in points for handle in _tap(layers, config, point, caught)]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def missing(points: Sequence[str], caught: dict[str, Tensor]) -> str | None:
    """The first point that a forward pass left nothing for."""
    return next((point for point in points if point not in caught), None)


class AttentionMaps:
    """Lets a model write its attention out while somebody compares the maps: fused attention never has them.

    Its dropout is gone for good: maps of which a tenth was dropped are not what the model attends to, and how the other
    terms train must not change in the middle, where a schedule comes to 0.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self._usual = model, model.config._attn_implementation
        for module in model.modules():
            if "Attention" not in type(module).__name__:
                continue
            for child in module.children():
                if isinstance(child, nn.Dropout):
                    child.p = 0.0
            if isinstance(
                getattr(module, "attention_dropout", None), float
            ):  # Llama and its relatives keep a number
                module.attention_dropout = 0.0

    def wanted(self, maps: bool) -> None:
        """Written out from now on, or computed as the model did before."""
        way = "eager" if maps else self._usual
        if self.model.config._attn_implementation != way:
            self.model.set_attn_implementation(way)


def _tap(layers: nn.ModuleList, config: PreTrainedConfig, point: str, caught: dict[str, Tensor]) -> list[Any]:
    what, _, number = point.partition(".")
    if int(number) > len(layers) or (number == "0" and what != "hidden"):
        raise RecipeError(
            f"objective: {what} asks for layer {number} of a model with layers 1 to {len(layers)}."
        )

    def keep(found: Tensor) -> None:
        caught[point] = found

    if what == "hidden" and number == "0":

        def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(args[0] if args else kwargs["hidden_states"])

        return [layers[0].register_forward_pre_hook(read, with_kwargs=True)]
    layer = layers[int(number) - 1]
    if what == "hidden":
        return [
            layer.register_forward_hook(lambda _, __, out: keep(out[0] if isinstance(out, tuple) else out))
        ]
    if what == "attention":

        def look(_: nn.Module, __: Any, out: Any) -> None:
            if isinstance(out, tuple) and len(out) > 1 and isinstance(out[1], Tensor) and out[1].dim() == 4:
                caught.setdefault(point, out[1])

        return [module.register_forward_hook(look) for module in layer.modules()]
    found = _parts(layer, PROJECTIONS[what])
    together = _parts(layer, TOGETHER) if config.model_type in (*IN_BLOCKS, *BY_GROUP) else []
    if together:
        return [together[0].register_forward_hook(lambda _, __, out: keep(part_of(out, what, config)))]
    if not found:
        raise RecipeError(
            f"objective: {type(layer).__name__} has no part named {' or '.join(PROJECTIONS[what])}; relations of this "
            "family are not known here, use hidden or similarity instead."
        )
    return [found[0].register_forward_hook(lambda _, __, out: keep(out))]


def _parts(layer: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    return [module for name, module in layer.named_modules() if name.rpartition(".")[2] in names]


def part_of(together: Tensor, what: str, config: PreTrainedConfig) -> Tensor:
    """Queries, keys or values, [B, T, their heads · d], out of one product [B, T, (h + 2 · k) · d].

    There are h heads of width d; k, how many of them have keys and values of their own, follows from the width.
    """
    heads = int(config.num_attention_heads)
    width = int(config.to_dict().get("head_dim") or config.hidden_size // heads)
    own = (together.shape[-1] // width - heads) // 2
    place = "qkv".index(what)
    if config.model_type in IN_BLOCKS:
        return torch.split(together, [heads * width, own * width, own * width], dim=-1)[place]
    groups = together.reshape(*together.shape[:-1], own, heads // own + 2, width)
    return torch.split(groups, [heads // own, 1, 1], dim=-2)[place].flatten(-3)


TOGETHER = ("c_attn", "query_key_value", "qkv_proj", "Wqkv")
"""What families call the part that makes queries, keys and values in one product."""
IN_BLOCKS = ("gpt2", "modernbert", "phi3")
"""Families in whose product come all queries first, then all keys, then all values."""
BY_GROUP = ("bloom", "falcon", "gpt_bigcode", "gpt_neox")
"""Families in whose product come the queries of a first group of heads, their key and their value, then those of the next."""
PROJECTIONS = {
    "q": ("q_proj", "query", "q_lin", "q"),
    "k": ("k_proj", "key", "k_lin", "k"),
    "v": ("v_proj", "value", "v_lin", "v"),
}
"""What families call the parts that make queries, keys and values."""


def layer_map(wanted: str | dict[int, int], student: int, teacher: int) -> dict[int, int]:
    """Student layer -> teacher layer, counted from 1.

    uniform: evenly, the last onto the last; last: the teacher's last `student` layers; skip: every k-th from the k-th
    on, k = ⌊teacher ÷ student⌋ (Sun et al. 2019, arXiv:1908.09355, call these two PKD-last and PKD-skip).

    Raises: RecipeError for layers that are not there.
    """
    mine = range(1, student + 1)
    if isinstance(wanted, dict):
        if wrong := [pair for pair in wanted.items() if pair[0] > student or pair[1] > teacher]:
            raise RecipeError(
                f"objective: layers: {wrong[0][0]}: {wrong[0][1]} is out of range; the student has {student} layers and "
                f"the teacher {teacher}."
            )
        return dict(wanted)
    if wanted == "uniform":
        return {layer: max(1, round(layer * teacher / student)) for layer in mine}
    if student > teacher:
        raise RecipeError(
            f"objective: layers: {wanted} needs a teacher with at least the student's {student} layers, and it has "
            f"{teacher}; use uniform."
        )
    if wanted == "last":
        return {layer: teacher - student + layer for layer in mine}
    return {layer: layer * (teacher // student) for layer in mine}


def key_value_heads(model: PreTrainedModel) -> int:
    """Of grouped-query attention; as many as heads elsewhere."""
    config = model.config.get_text_config()
    if (
        config.model_type == "falcon"
    ):  # has a name of its own for them, which its older architecture does not read
        if config.new_decoder_architecture:
            return int(config.num_kv_heads)
        return 1 if config.multi_query else int(config.num_attention_heads)
    return int(config.to_dict().get("num_key_value_heads") or config.num_attention_heads)
