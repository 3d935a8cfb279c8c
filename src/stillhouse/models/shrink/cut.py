"""Keep some layers, heads, neurons and channels of a model, and copy their weights into an ordinary model of its family.

The new model is built from a changed configuration, so that everything a layer knows of its own place (its index in the
key-value cache, its kind of attention) is right; then each of its tensors is taken from the old one's, axis by axis.

Where fewer groups of keys and values are left than the kept heads need, neighbouring groups are averaged into one (Ainslie
et al. 2023, arXiv:2305.13245, section 2.1); everything else is copied.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import RecipeError
from ..taps import layers_of
from .families import FAMILIES, Family, Part, part_of
from .skeleton import Shape, Skeleton


@dataclass(frozen=True)
class Heads:
    """What stays of one attention."""

    queries: list[int]
    """Heads, in the order in which they share the groups."""
    groups: list[list[int]]
    """For each group of keys and values that is left, those of the old model that it is the mean of."""


@dataclass(frozen=True)
class Cut:
    """What stays of a model."""

    shape: Shape
    layers: dict[str, list[int]]
    """Stack -> rising layer numbers."""
    heads: dict[str, Heads] = field(default_factory=dict)
    """Dotted name of an attention in the old model -> its heads; those not named stay whole."""
    neurons: dict[str, Tensor] = field(default_factory=dict)
    """Dotted name of a layer in the old model -> its neurons."""
    hidden: Tensor | None = None
    """Channels of the hidden width."""


def skeleton_of(model: PreTrainedModel) -> Skeleton:
    """The family's table laid over a loaded model."""
    return Skeleton.of(
        model.config.get_text_config().to_dict(),
        {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
    )


def keep_layers(model: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
    """An ordinary model of the same family with only the layers `keep`; for every family that has one list of layers."""
    name, layers = layers_of(model)
    if keep[-1] >= len(layers):
        raise RecipeError(
            f"student.from_teacher.layers: the teacher has layers 0 to {len(layers) - 1}, no {keep[-1]}."
        )
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    _keep_lists(text, len(layers), keep)
    text.num_hidden_layers = len(keep)
    return _remade(model, config, {f"{name}.": keep})


def cut(model: PreTrainedModel, what: Cut) -> PreTrainedModel:
    """An ordinary model of the same family with what stays, in the old model's arithmetic and in eval mode.

    Raises: RecipeError for a family or a weight that nothing says how to cut.
    """
    skeleton = skeleton_of(model)
    family = skeleton.family
    config = _config(model, what, family)
    prefixes = {}
    for name, tensor in model.state_dict().items():
        if (part := part_of(name, tensor.dim(), family)).stack is not None:
            prefixes[part.prefix] = what.layers[part.stack.name]

    def take(name: str, tensor: Tensor) -> Tensor:
        part = part_of(name, tensor.dim(), family)
        for dimension, axis in enumerate(part.axes):
            tensor = _taken(tensor, dimension, axis, part, what, skeleton)
        scales = bool(model.config.to_dict().get("scale_decoder_outputs")) and model.can_generate()
        if family.scaled and name.endswith(family.scaled) and scales:
            tensor = tensor * (what.shape.hidden_size / skeleton.shape.hidden_size) ** 0.5
        return tensor.contiguous()

    first = family.shared_bias
    return _remade(model, config, prefixes, take, lambda name: bool(first) and first in name)


def every_nth(have: int, keep: int) -> list[int]:
    """`keep` of `have` layer numbers, evenly spread, the first and the last among them (keep > 1)."""
    if keep == 1:
        return [0]
    return [round(number * (have - 1) / (keep - 1)) for number in range(keep)]


def _taken(tensor: Tensor, dimension: int, axis: str, part: Part, what: Cut, skeleton: Skeleton) -> Tensor:
    """What stays of one dimension."""
    width = skeleton.head_width
    match axis:
        case "H" if what.hidden is not None:
            return tensor.index_select(dimension, what.hidden)
        case "E" if what.hidden is not None and skeleton.follows:
            return tensor.index_select(dimension, what.hidden)
        case "M" if (neurons := what.neurons.get(f"{part.prefix}{part.layer}")) is not None:
            return tensor.index_select(dimension, neurons)
        case "Q" | "K" | "A" if (heads := what.heads.get(attention_name(part))) is not None:
            if axis == "A":
                return tensor.index_select(dimension, torch.tensor(heads.queries))
            cut_up = (*tensor.shape[:dimension], -1, width, *tensor.shape[dimension + 1 :])
            blocks = tensor.reshape(cut_up).movedim(dimension, 0)
            if axis == "Q":
                kept = blocks[torch.tensor(heads.queries)]
            else:
                kept = torch.stack([_mean(blocks, group) for group in heads.groups])
            taken: Tensor = kept.movedim(0, dimension).flatten(dimension, dimension + 1)
            return taken
    return tensor


def _mean(blocks: Tensor, group: list[int]) -> Tensor:
    """One block is itself; several are averaged."""
    return blocks[group[0]] if len(group) == 1 else blocks[torch.tensor(group)].mean(0)


def attention_name(part: Part) -> str:
    """The dotted name of the attention that a tensor belongs to, "model.layers.3.self_attn."."""
    return f"{part.prefix}{part.layer}.{part.attention}"


def _config(model: PreTrainedModel, what: Cut, family: Family) -> Any:
    """The configuration in the new shape."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    known = text.to_dict()
    for stack, count in zip(family.stacks, what.shape.layers, strict=True):
        keep = what.layers[stack.name]
        assert len(keep) == count
        have = int(known.get(stack.count) or known[family.stacks[0].count])
        if keep[-1] >= have:
            raise RecipeError(
                f"student.from_teacher.layers: the teacher has layers 0 to {have - 1}, no {keep[-1]}."
            )
        if len(family.stacks) == 1:
            _keep_lists(text, have, keep)
        setattr(text, stack.count, count)
        setattr(text, stack.heads, what.shape.heads)
        setattr(text, stack.neurons, what.shape.intermediate_size)
        if stack.kv_heads and known.get(stack.kv_heads) is not None:
            setattr(text, stack.kv_heads, what.shape.kv_heads)
    if family.head_width:
        width = known.get(family.head_width) or known[family.hidden] // known[family.stacks[0].heads]
        setattr(text, family.head_width, width)
    if family.embedding and known[family.embedding] == known[family.hidden]:
        setattr(text, family.embedding, what.shape.hidden_size)  # narrower ones come later, see `factorise`
    setattr(text, family.hidden, what.shape.hidden_size)
    for name, other in family.extra.items():
        if name in known:
            setattr(text, name, getattr(text, other))
    return config


def _keep_lists(config: Any, have: int, keep: list[int]) -> None:
    """Fields with one entry a layer, such as its kind of attention."""
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == have:
            setattr(config, name, [value[number] for number in keep])


def _remade(
    model: PreTrainedModel,
    config: Any,
    prefixes: Mapping[str, list[int]],
    take: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor,
    of_first: Callable[[str], bool] = lambda _: False,
) -> PreTrainedModel:
    """A model of that configuration with the old one's weights.

    Args:
        prefixes: dotted beginning of a list of layers -> the old numbers of its new layers.
        take: (old name, old tensor) -> what the new model gets of it.
        of_first: whether a tensor belongs to the first layer, whichever that is.
    """
    with torch.random.fork_rng():
        student: Any = type(model)(config)
    _untie(student, model)
    old = model.state_dict()
    weights = {}
    for name in student.state_dict():
        source = name
        for prefix, keep in prefixes.items():
            if name.startswith(prefix):
                number, _, rest = name.removeprefix(prefix).partition(".")
                source = f"{prefix}{0 if of_first(name) else keep[int(number)]}.{rest}"
        weights[name] = take(source, old[source].detach().cpu())
    student.load_state_dict(weights, strict=True)
    if model.can_generate():
        student.generation_config = copy.deepcopy(model.generation_config)
    for parameter in student.parameters():  # not .to(dtype): that would round the rotary frequencies as well
        parameter.data = parameter.data.to(model.dtype)
    made: PreTrainedModel = student.eval()
    return made


def _untie(student: PreTrainedModel, model: PreTrainedModel) -> None:
    """Give a student's head weights of its own where the old model's has some: T5 1.1's configuration says that they are tied,
    and its files have both."""
    ours, theirs = student.get_output_embeddings(), model.get_output_embeddings()
    if not isinstance(ours, nn.Linear) or not isinstance(theirs, nn.Linear):
        return
    apart = theirs.weight is not model.get_input_embeddings().weight
    if apart and ours.weight is student.get_input_embeddings().weight:
        ours.weight = nn.Parameter(ours.weight.detach().clone())


def known_family(model: PreTrainedModel) -> bool:
    """Whether more than whole layers can be cut."""
    return model.config.get_text_config().model_type in FAMILIES
