"""Which layers to keep.

block_influence   those that turn the hidden state most (Men et al. 2024, ShortGPT, arXiv:2403.03853)
perplexity        one layer after another goes, always the one whose removal costs least nats on the probed rows: what
                  is left is measured again each time, as Song et al. 2024 (SLEB), arXiv:2402.09025, do
similarity        the run of consecutive layers goes whose input and output are most alike by their angle at each
                  text's last token (Gromov et al. 2024, arXiv:2403.17887, equation 6)
every_nth         evenly spread; no row is read
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .importance import Probe, mask_at


def most_influential(influence: Tensor, keep: int) -> list[int]:
    """The `keep` layer numbers of greatest influence, in their order in the model."""
    return sorted(torch.topk(influence, keep).indices.tolist())


@torch.no_grad()
def least_loss(
    layers: nn.ModuleList,
    probes: Sequence[Probe],
    keep: int,
    say: Callable[[int, int], None] = lambda done, all_: None,
) -> tuple[list[int], list[float]]:
    """(the layers that go until `keep` are left, always the cheapest one first; mean loss after each removal).

    Removing a layer mostly makes the others dearer, so a layer whose last known price is above a fresh one of another need
    not be asked again (Minoux 1978): some 3 passes over the rows for each layer that goes, instead of one for each that is left.
    """
    gone: list[int] = []
    path: list[float] = []
    removals = len(layers) - keep
    waiting = [(-math.inf, number) for number in range(len(layers))]
    for step in range(removals):
        fresh: set[int] = set()
        while waiting[0][1] not in fresh:
            _, number = waiting[0]
            with passed_by(layers, [*gone, number]):
                loss = mean_loss(probes)
            heapq.heapreplace(waiting, (loss, number))
            fresh.add(number)
        loss, number = heapq.heappop(waiting)
        gone.append(number)
        path.append(loss)
        say(step + 1, removals)
    return gone, path


@torch.no_grad()
def removal_costs(layers: nn.ModuleList, probes: Sequence[Probe]) -> Tensor:
    """[layers]: how much the mean loss rises without each one, all others in their place."""
    whole = mean_loss(probes)
    costs = []
    for number in range(len(layers)):
        with passed_by(layers, [number]):
            costs.append(mean_loss(probes) - whole)
    return torch.tensor(costs, dtype=torch.float64)


@torch.no_grad()
def most_alike_run(
    layers: nn.ModuleList, probes: Sequence[Probe], keep: int, name: str = ""
) -> tuple[list[int], list[float]]:
    """(layers without the run of layers that turns the last token least, angle ÷ π of each run by its first layer).

    The very last layer always stays: what it does is not like what the others do (Gromov et al., section 4).

    Args: name: the layers' dotted name, which tells an encoder from a decoder.
    """
    run = len(layers) - keep
    if run == 0:
        return list(range(len(layers))), []
    states: list[Tensor] = []
    angles = torch.zeros(max(1, len(layers) - run), dtype=torch.float64)
    with _inputs(layers, states):
        for forward, masks in probes:
            states.clear()
            forward()
            last = mask_at(name, masks).long().cumsum(1).argmax(1)
            at = [state[torch.arange(len(state)), last].double() for state in states]
            for first in range(len(angles)):
                cosine = torch.cosine_similarity(at[first], at[first + run], dim=-1).clamp(-1, 1)
                angles[first] += cosine.arccos().mean().cpu() / math.pi / len(probes)
    first = int(angles.argmin())
    return [n for n in range(len(layers)) if not first <= n < first + run], angles.tolist()


def mean_loss(probes: Sequence[Probe]) -> float:
    """Over the batches."""
    return sum(float(run().detach()) for run, _ in probes) / max(1, len(probes))


@contextmanager
def passed_by(layers: nn.ModuleList, numbers: Sequence[int]) -> Iterator[None]:
    """While this is open, these layers hand on what they are given."""
    for number in numbers:
        layers[number].forward = _hand_on if _is_plain(layers[number]) else _but_for_hidden(layers[number])
    try:
        yield
    finally:
        for number in numbers:
            del layers[number].forward


def _hand_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _is_plain(layer: nn.Module) -> bool:
    """Whether it says hidden states alone; T5's say a table of positions too, which later layers read."""
    return not hasattr(layer, "layer")


def _but_for_hidden(layer: nn.Module) -> Callable[..., tuple[Any, ...]]:
    whole = layer.forward

    def hand_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return (hidden_states, *whole(hidden_states, *args, **kwargs)[1:])

    return hand_on


@contextmanager
def _inputs(layers: nn.ModuleList, states: list[Tensor]) -> Iterator[None]:
    """While this is open, a forward pass leaves what each layer reads [B, T, H], and what the last one says."""

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"]).detach())

    def said(_: nn.Module, __: Any, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output).detach())

    handles = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(said))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stack_layers(model: PreTrainedModel, path: str) -> nn.ModuleList:
    """The list of layers whose dotted name ends so."""
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and f".{name}".endswith(f".{path}")
    ]
    assert len(found) == 1, f"{type(model).__name__} has {len(found)} lists called {path}"
    return found[0]
