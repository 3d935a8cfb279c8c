"""What a teacher says, in the forms that the terms of an objective know."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..losses import Head
from ..losses.fused import chunks


@dataclass(frozen=True)
class Dense:
    """All the teacher's logits, projected chunk by chunk when a loss asks for them."""

    hidden: Tensor
    """[N, H]"""
    head: Head
    features: dict[str, Tensor] = field(default_factory=dict)
    """What its layers handed on, by point (see `models.taps.tapped`)."""

    def logits(self, positions: slice) -> Tensor:
        """[n, V], float32 throughout: bfloat16 logits have only 3 digits, and kept targets are float32 too."""
        return self.head.logits(self.hidden[positions], torch.float32)

    def each(self) -> Iterator[tuple[slice, Tensor]]:
        """Chunk by chunk (positions, their logits), each in the place of the one before: a new tensor each time costs a
        processor as much as a tenth of the product."""
        outcomes = self.head.outcomes(self.hidden)
        parts = chunks(len(self), outcomes, self.hidden.device)
        rows = max((part.stop - part.start for part in parts), default=0)
        room = self.hidden.new_empty((rows, outcomes), dtype=torch.float32)
        for part in parts:
            hidden = self.hidden[part]
            yield part, self.head.logits(hidden, torch.float32, room[: len(hidden)])

    def at(self, temperature: float) -> "Dense":
        """What it says at `temperature`, where that is more than a division of its logits (see `losses.pooling`)."""
        return replace(self, head=self.head.at(temperature))

    def __len__(self) -> int:
        return self.hidden.shape[0]


@dataclass(frozen=True)
class TopK:
    """The K largest log-probabilities over the whole vocabulary, taken at one temperature."""

    ids: Tensor
    """[N, K]"""
    log_p: Tensor
    """[N, K], most probable first, or, where all outcomes are kept, in any order."""
    temperature: float

    def __len__(self) -> int:
        return self.ids.shape[0]

    def at(self, temperature: float) -> "TopK":
        """The same distributions at another temperature: exact if all outcomes are kept, and to be asked for only then."""
        log_p = (self.log_p.float() * (self.temperature / temperature)).log_softmax(-1)
        return TopK(self.ids, log_p, temperature)


@dataclass(frozen=True)
class Sampled:
    """Outcomes kept or drawn from the teacher's distribution at one temperature, each once with its share."""

    ids: Tensor
    """[N, n]"""
    shares: Tensor
    """[N, n], adding up to 1 on average; 0 at places that are not used."""
    entropy: Tensor
    """[N], nats; from disk the mean over each example's positions, for only its sum goes into the loss."""
    temperature: float

    def __len__(self) -> int:
        return self.ids.shape[0]


@dataclass(frozen=True)
class Crossed:
    """What a teacher with another tokenizer says, and where it stands at the same byte as the student."""

    dense: Dense
    """At the M counted positions of its own."""
    tokens: Tensor
    """[M], what comes next in its own tokens."""
    spans: Tensor
    """[S, 4]: (first, end) of the student's counted positions and (first, end) of the teacher's, over the batch."""
    positions: int
    """N, the student's."""
    mine: Tensor
    """[K] ids of the tokens that both have, in the student's vocabulary."""
    theirs: Tensor
    """[K] and in the teacher's."""
    nearest: Callable[[Tensor], Tensor]
    """Ids of the teacher's vocabulary -> the student's nearest ones, -1 where there is none."""

    def __len__(self) -> int:
        return self.positions


SoftTargets = Dense | TopK | Sampled | Crossed
Kept = TopK | Sampled
"""What can lie on disk."""


def joined(parts: Sequence[Kept], place: torch.device) -> Kept:
    """Several examples' targets as one, in order, at `place`."""
    first = parts[0]
    if isinstance(first, TopK):
        some = [part for part in parts if isinstance(part, TopK)]
        ids, log_p = (
            torch.cat([getattr(part, name) for part in some]).to(place) for name in ("ids", "log_p")
        )
        return TopK(ids, log_p, first.temperature)
    drawn = [part for part in parts if isinstance(part, Sampled)]
    width = max(part.ids.shape[1] for part in drawn)
    ids, shares = (
        torch.cat([widened(getattr(part, name), width) for part in drawn]).to(place)
        for name in ("ids", "shares")
    )
    return Sampled(ids, shares, torch.cat([part.entropy for part in drawn]).to(place), first.temperature)


def widened(values: Tensor, width: int) -> Tensor:
    """[N, n] -> [N, width], zeros at the end."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
