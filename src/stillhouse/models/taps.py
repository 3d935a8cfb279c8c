"""Reading a model from the inside: what its layers pass on.

By hooks on the modules, so that any transformers model works, wrapped by DDP or not, and with fused attention on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import RecipeError
from .heads import hidden_at_head, tokens_read
from .insides import BY_GROUP, IN_BLOCKS, PROJECTIONS, TOGETHER, no_parts, point_at


def layers_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """(dotted name, list) of the model's layers.  Raises: RecipeError if there is no one such list."""
    if model.config.is_encoder_decoder:
        raise RecipeError(
            f"{type(model).__name__} is an encoder–decoder, whose two lists of layers are not told apart here: it is cut only if its "
            "family is in models/shrink/families.py (else use from_config), and never sharded (use DDP)."
        )
    count = model.config.get_text_config().num_hidden_layers
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise RecipeError(
            f"{type(model).__name__}: found {len(found)} lists of {count} layers where one was expected; "
            "give the student as a model or a config instead of from_teacher."
        )
    return found[0]


NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm", "layer_norm")
"""What families call the norm between their last layer and their head; some call others so, too."""


def stacks_of(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """The model's lists of layers by name: "encoder" and "decoder" of an encoder–decoder, and one without a name of any other.

    Raises: RecipeError if there is no one such list where one is looked for.
    """
    if not model.config.is_encoder_decoder:
        return {"": layers_of(model)[1]}
    found = {}
    for name, stack in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        lists = [child for child in stack.children() if isinstance(child, nn.ModuleList)]
        if len(lists) != 1:
            raise RecipeError(
                f"objective: {type(model).__name__}'s {name} has {len(lists)} lists of layers where one was expected; "
                "remove the terms about layers."
            )
        found[name] = lists[0]
    return found


def config_of(model: PreTrainedModel, stack: str = "") -> PreTrainedConfig:
    """Of one of the stacks, whose sizes may differ in some encoder–decoders (T5Gemma)."""
    part = {"encoder": model.get_encoder, "decoder": model.get_decoder}[stack]() if stack else model
    config: PreTrainedConfig = part.config.get_text_config()
    return config


def speaking_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """(name, layers) of the stack whose last layer's output becomes what the model says: an encoder–decoder's decoder."""
    return list(stacks_of(model).items())[-1]


@torch.no_grad()
def final_norm(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """What a language model does to its last layer's output before the head reads it: a norm, and in some families a factor.

    Raises: RecipeError if what is found, tried out on four tokens, does not make the one of the other.
    """
    stack, layers = speaking_stack(model)
    around = next(one for one in model.modules() if any(child is layers for child in one.children()))
    norms = [*(module for child, module in around.named_children() if child in NORMS), nn.Identity()]
    last, was_training = point_at(stack, "hidden", len(layers)), model.training
    model.eval()
    ids = torch.arange(1, 5, device=model.device).unsqueeze(0)
    with tapped(model, [last]) as own, hidden_at_head(model) as caught:
        model(**tokens_read(model, ids), use_cache=False)
    model.train(was_training)
    read = caught[-1]
    factors = (1.0, read.shape[-1] ** -0.5)  # T5 with a tied head divides by the root of its width
    for norm, factor in product(norms, factors) if last in own and own[last].shape == read.shape else ():
        if torch.allclose(norm(own[last]), read / factor, rtol=1e-2, atol=1e-3):
            return norm if factor == 1.0 else partial(_scaled, norm, factor)
    raise RecipeError(
        f"objective: deeper_layers: what {type(model).__name__} does between its last layer and its head is not known here; "
        "remove the term."
    )


def _scaled(norm: nn.Module, factor: float, hidden: Tensor) -> Tensor:
    scaled: Tensor = norm(hidden) * factor
    return scaled


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

    Those of an encoder–decoder begin with encoder. or decoder. (`point_at`); a decoder's attention, queries, keys and values are those
    of its self-attention.

    Raises: RecipeError for a layer that is not there, or a family whose parts have other names.
    """
    caught: dict[str, Tensor] = {}
    stacks = stacks_of(model) if points else {}
    config = model.config.get_text_config()
    handles = [handle for point in points for handle in _tap(stacks, config, point, caught)]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def missing(points: Sequence[str], caught: dict[str, Tensor]) -> str | None:
    """The first point that a forward pass left nothing for."""
    return next((point for point in points if point not in caught), None)


OF_MAPS = ("attn_dropout", "attention_dropout", "attn_drop", "dropout")
"""What families call the dropout of their maps, a module or a number; that of what an attention hands on has other names."""


class AttentionMaps:
    """Lets a model write its attention out while somebody compares the maps: fused attention never has them.

    Its dropout is gone for good: maps of which a tenth was dropped are not what the model attends to, and how the other
    terms train must not change in the middle, where a schedule comes to 0.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self._usual = model, model.config._attn_implementation
        for module in model.modules():
            if not _attends(module) or any(map(_attends, module.children())):
                continue  # what is around an attention (T5LayerSelfAttention) drops what that hands on, not its map
            for name in OF_MAPS:
                own = getattr(module, name, None)
                if isinstance(own, nn.Dropout):
                    own.p = 0.0
                elif isinstance(own, float):
                    setattr(module, name, 0.0)

    def wanted(self, maps: bool) -> None:
        """Written out from now on, or computed as the model did before."""
        way = "eager" if maps else self._usual
        if self.model.config._attn_implementation != way:
            self.model.set_attn_implementation(way)


def _attends(module: nn.Module) -> bool:
    return "Attention" in type(module).__name__


def _tap(
    stacks: dict[str, nn.ModuleList], config: PreTrainedConfig, point: str, caught: dict[str, Tensor]
) -> list[Any]:
    *stack, what, number = point.split(".")
    layers = stacks["".join(stack)]
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
            rest = out[1:] if isinstance(out, tuple) else ()
            maps = [part for part in rest if isinstance(part, Tensor) and part.dim() == 4]
            if maps:  # the innermost module ends first, and T5's hands on its bias before its map
                caught.setdefault(point, maps[-1])

        return [module.register_forward_hook(look) for module in layer.modules()]
    found = _parts(layer, PROJECTIONS[what])
    together = _parts(layer, TOGETHER) if config.model_type in (*IN_BLOCKS, *BY_GROUP) else []
    if together:
        return [together[0].register_forward_hook(lambda _, __, out: keep(part_of(out, what, config)))]
    if not found:
        raise RecipeError(no_parts(config.model_type, what))
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


def layer_map(wanted: str | dict[int, int], student: int, teacher: int, stack: str = "") -> dict[int, int]:
    """Student layer -> teacher layer, counted from 1, of the whole model or of one `stack`.

    uniform: evenly, the last onto the last; last: the teacher's last `student` layers; skip: every k-th from the k-th
    on, k = ⌊teacher ÷ student⌋ (Sun et al. 2019, arXiv:1908.09355, call these two PKD-last and PKD-skip).

    Raises: RecipeError for layers that are not there.
    """
    mine, layers = range(1, student + 1), f"{stack} layers".strip()
    if isinstance(wanted, dict):
        if wrong := [pair for pair in wanted.items() if pair[0] > student or pair[1] > teacher]:
            raise RecipeError(
                f"objective: layers: {wrong[0][0]}: {wrong[0][1]} is out of range; the student has {student} {layers} and "
                f"the teacher {teacher}."
            )
        return dict(wanted)
    if wanted == "uniform":
        return {layer: max(1, round(layer * teacher / student)) for layer in mine}
    if student > teacher:
        raise RecipeError(
            f"objective: layers: {wanted} needs a teacher with at least the student's {student} {layers}, and it has "
            f"{teacher}; use uniform."
        )
    if wanted == "last":
        return {layer: teacher - student + layer for layer in mine}
    return {layer: layer * (teacher // student) for layer in mine}


def key_value_heads(model: PreTrainedModel, stack: str = "") -> int:
    """Of grouped-query attention; as many as heads elsewhere.  BART's two stacks may have different numbers."""
    config = config_of(model, stack)
    if (
        config.model_type == "falcon"
    ):  # has a name of its own for them, which its older architecture does not read
        if config.new_decoder_architecture:
            return int(config.num_kv_heads)
        return 1 if config.multi_query else int(config.num_attention_heads)
    said = config.to_dict()
    return int(
        said.get("num_key_value_heads") or said.get(f"{stack}_attention_heads") or config.num_attention_heads
    )
