"""Which heads, neurons, channels and layers of a model matter: everything that can be cut is measured in one pass over some rows.

    activation   how much each adds to what follows: the root mean square of its activation × the length of its column of
                 the product behind it (the criterion of Sun et al. 2023, arXiv:2306.11695, summed over the column); a hidden
                 channel by its mean size behind the norms (Muralidharan et al. 2024, Minitron, arXiv:2407.14679, section 2.2)
    gradient     how much the loss would change without it, to first order: |activation · gradient|, a row at a time (Michel et
                 al. 2019, arXiv:1905.10650; Ma et al. 2023, LLM-Pruner, arXiv:2305.11627).  Takes a backward pass.

Layers are measured on the way by how much they turn the hidden state (see `taps.block_influence`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .cut import Cut, Heads, attention_name
from .families import part_of
from .skeleton import Shape, Skeleton

Probe = tuple[Callable[[], Tensor], tuple[Tensor, ...]]
"""(runs the model on a batch and says its loss, masks [B, T] of the positions that are no padding: of an encoder–decoder the
decoder's and the encoder's)."""


def mask_at(name: str, masks: tuple[Tensor, ...]) -> Tensor:
    """Of the masks of a `Probe`, that of what the module of this dotted name reads."""
    return masks[-1 if "encoder" in name.split(".") else 0]


@dataclass(frozen=True)
class Importance:
    """Larger is more important; numbers compare within one entry only."""

    layers: dict[str, Tensor]
    """Stack -> [layers], 1 − cosine of input and output."""
    heads: dict[str, Tensor]
    """Dotted name of an attention -> [heads]."""
    neurons: dict[str, Tensor]
    """Dotted name of a layer -> [neurons]."""
    hidden: Tensor
    """[H]"""


def measure_importance(
    model: PreTrainedModel,
    skeleton: Skeleton,
    probes: Iterable[Probe],
    by: Literal["activation", "gradient"] = "activation",
) -> Importance:
    """One pass over `probes`; nothing is left in the model."""
    sums = _Sums(by == "gradient")
    modules = dict(model.named_modules())
    outputs, norms, blocks = _places(model, skeleton)
    handles = [modules[name].register_forward_pre_hook(partial(sums.before, name)) for name in outputs]
    handles += [modules[name].register_forward_hook(partial(sums.after, name)) for name in norms]
    handles += [
        modules[name].register_forward_hook(partial(sums.turned, name), with_kwargs=True)
        for names in blocks.values()
        for name in names
    ]
    try:
        for run, masks in probes:
            sums.masks = masks
            with torch.set_grad_enabled(sums.by_gradient):
                sums.end(run())
    finally:
        for handle in handles:
            handle.remove()
    heads, neurons = {}, {}
    for name, (kind, place) in outputs.items():
        values = sums.channels[name]
        if not sums.by_gradient:
            weight: Any = modules[name].weight
            values = (
                values * weight.detach().double().square().sum(0).cpu()
            )  # squares add up over a head's channels
        if kind == "heads":
            heads[place] = values.reshape(-1, skeleton.head_width).sum(-1)
        else:
            neurons[place] = values
    turned = {stack: sums.turns(names) for stack, names in blocks.items()}
    return Importance(turned, heads, neurons, sum(sums.channels[name] for name in norms))  # type: ignore[arg-type]


def unmeasured(model: PreTrainedModel, skeleton: Skeleton) -> Importance:
    """Everything alike, for who only asks about size and speed."""
    outputs, _, blocks = _places(model, skeleton)
    own = skeleton.shape
    return Importance(
        {stack: torch.ones(len(names)) for stack, names in blocks.items()},
        {place: torch.ones(own.heads) for kind, place in outputs.values() if kind == "heads"},
        {place: torch.ones(own.intermediate_size) for kind, place in outputs.values() if kind == "neurons"},
        torch.ones(own.hidden_size),
    )


def choose(importance: Importance, skeleton: Skeleton, shape: Shape, layers: dict[str, list[int]]) -> Cut:
    """What stays of the model in that shape: of everything the most important, in the model's own order."""
    own = skeleton.shape
    heads: dict[str, Heads] = {}
    if (shape.heads, shape.kv_heads) != (own.heads, own.kv_heads):
        found = importance.heads
        if skeleton.family.shared_bias:  # by head and for all layers: they must keep the same ones
            found = dict.fromkeys(found, sum(value / value.sum() for value in found.values()))  # type: ignore[arg-type]
        heads = {
            name: choose_heads(value, own.kv_heads, shape.heads, shape.kv_heads)
            for name, value in found.items()
        }
    neurons: dict[str, Tensor] = {}
    if shape.intermediate_size != own.intermediate_size:
        neurons = {name: _best(value, shape.intermediate_size) for name, value in importance.neurons.items()}
    hidden = None
    if shape.hidden_size != own.hidden_size:
        hidden = _best(importance.hidden, shape.hidden_size)
    return Cut(shape, layers, heads, neurons, hidden)


def choose_heads(importance: Tensor, groups: int, keep: int, keep_groups: int) -> Heads:
    """The best heads [heads] that `keep_groups` groups of equal size can hold.

    Whole groups go, or heads of each group; if more heads are kept than those groups had, neighbouring groups are merged.
    """
    size, each = len(importance) // groups, keep // keep_groups
    if each <= size:
        ranked = importance.reshape(groups, size).sort(descending=True)
        best = _best(ranked.values[:, :each].sum(1), keep_groups).tolist()
        queries = [
            group * size + head for group in best for head in sorted(ranked.indices[group, :each].tolist())
        ]
        return Heads(queries, [[group] for group in best])
    edges = [number * groups // keep_groups for number in range(keep_groups + 1)]
    merged = [list(range(low, high)) for low, high in pairwise(edges)]
    queries = []
    for group in merged:
        first = group[0] * size
        queries += (first + _best(importance[first : first + len(group) * size], each)).tolist()
    return Heads(queries, merged)


def _best(values: Tensor, keep: int) -> Tensor:
    """[keep] indices of the largest, rising."""
    return torch.topk(values, keep).indices.sort().values


def _places(
    model: PreTrainedModel, skeleton: Skeleton
) -> tuple[dict[str, tuple[str, str]], list[str], dict[str, list[str]]]:
    """(output product -> what its input is and where that belongs, norms, stack -> its layers' names)."""
    outputs: dict[str, tuple[str, str]] = {}
    norms: list[str] = []
    blocks: dict[str, list[str]] = {stack.name: [] for stack in skeleton.family.stacks}
    for name, parameter in model.named_parameters():
        if not name.endswith(".weight"):
            continue
        part, module = part_of(name, parameter.dim(), skeleton.family), name.removesuffix(".weight")
        if part.axes == "H":
            norms.append(module)
        if part.stack is None:
            continue
        block = f"{part.prefix}{part.layer}"
        if block not in blocks[part.stack.name]:
            blocks[part.stack.name].append(block)
        end = part.rest.removesuffix(".weight")
        if end == part.stack.output:
            outputs[module] = ("neurons", block)
        elif end in part.stack.attentions.values():
            outputs[module] = ("heads", attention_name(part))
    return outputs, norms, blocks


class _Sums:
    """What the hooks add up."""

    def __init__(self, by_gradient: bool) -> None:
        self.by_gradient = by_gradient
        self.masks: tuple[Tensor, ...] = ()
        self.channels: dict[str, Tensor] = {}
        """Module -> [channels]: sum of squares (of sizes behind a norm), or of |activation · gradient|."""
        self._turned: dict[str, tuple[float, int]] = {}
        """Layer -> (sum of 1 − cosine, positions)."""
        self._waiting: list[tuple[str, Tensor]] = []

    def before(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        """The input of an output product."""
        self._see(name, args[0], lambda values: values.square())

    def after(self, name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        """What a norm says."""
        self._see(name, output, lambda values: values.abs())

    def turned(
        self, name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """How much a layer turns the hidden state."""
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.cosine_similarity(before.detach().float(), after.detach().float(), dim=-1)
        turns = 1.0 - self._counted(name, cosine.unsqueeze(-1)).double()
        turned, seen = self._turned.get(name, (0.0, 0))
        self._turned[name] = turned + float(turns.sum()), seen + len(turns)

    def turns(self, names: list[str]) -> Tensor:
        """[layers], the mean over all positions."""
        return torch.tensor([self._turned[name][0] / max(1, self._turned[name][1]) for name in names])

    def _see(self, name: str, values: Tensor, size: Callable[[Tensor], Tensor]) -> None:
        if self.by_gradient:
            self._waiting.append((name, values))
        else:
            self._add(name, size(self._counted(name, values.float()).double()).sum(0))

    def end(self, loss: Tensor) -> None:
        """After a batch."""
        if not self._waiting:
            return
        tensors = [values for _, values in self._waiting]
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
        for (name, values), gradient in zip(self._waiting, gradients, strict=True):
            if gradient is not None:
                change = (values.detach().float() * gradient.float()).double().flatten(1, -2).sum(1)
                self._add(name, change.abs().sum(0))
        self._waiting = []

    def _add(self, name: str, values: Tensor) -> None:
        self.channels[name] = self.channels.get(name, torch.zeros_like(values, device="cpu")) + values.cpu()

    def _counted(self, name: str, values: Tensor) -> Tensor:
        """[positions, channels] without padding; a sequence of another length (what an encoder has heard) counts whole."""
        mask = mask_at(name, self.masks)
        if values.shape[:2] == mask.shape:
            return values[mask]
        return values.flatten(0, -2)
