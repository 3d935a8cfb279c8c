"""The objective's terms about layers: what to tap, through which projectors, and into which positions the values go."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError
from ..losses import features as losses
from ..models.taps import AttentionMaps, key_value_heads, layer_map, layers_of, missing
from ..recipe import Attention, Embeddings, Hidden, Relations, Similarity
from ..seeds import draw_seed
from ..tasks import Layout
from .beside import Beside

HIDDEN = {"mse": losses.hidden_mse, "cosine": losses.hidden_cosine, "normalised": losses.hidden_normalised}
MAPS = {"kl": losses.attention_kl, "mse": losses.attention_mse}
ALIKE = {
    "gram": losses.gram,
    "rkd_distance": losses.rkd_distance,
    "rkd_angle": losses.rkd_angle,
    "cka": losses.cka,
}
FEATURES = (Hidden, Embeddings, Attention, Relations, Similarity)

PROJECTORS = "projectors.safetensors"

Tapped = dict[str, Tensor]
Value = Callable[[Tapped, Tapped, Layout], Tensor]
"""(the student's taps, the teacher's, how tokens lie in the batch) -> [N], one number a counted position."""


class FeatureTerms(Beside):
    """Everything that compares layers in an objective.  Its projectors learn with the student and never become part of it."""

    file = PROJECTORS

    def __init__(
        self, terms: Mapping[int, Any], student: PreTrainedModel, teacher: PreTrainedModel, seed: int
    ) -> None:
        """Args: terms: place in the objective -> term."""
        super().__init__()
        self.projectors = nn.ModuleDict()
        self._models, self._seed = (student, teacher), seed  # in a tuple: they are not parts of this module
        self._pairs: dict[int, list[tuple[str, str]]] = {number: [] for number in terms}
        self._of_maps = {number for number, term in terms.items() if isinstance(term, Attention)}
        self._maps = [AttentionMaps(model) for model in self._models] if self._of_maps else []
        self._values = {number: self._prepared(number, term) for number, term in terms.items()}

    def points(self, live: Collection[int]) -> tuple[list[str], list[str]]:
        """What to tap of the student and of the teacher for the terms at these places of the objective."""
        pairs = [pair for number in self._pairs if number in live for pair in self._pairs[number]]
        return sorted({mine for mine, _ in pairs}), sorted({theirs for _, theirs in pairs})

    def attend(self, live: Collection[int]) -> None:
        """Let both models write their attention out if one of the terms at these places compares it, and only then."""
        for maps in self._maps:
            maps.wanted(not self._of_maps.isdisjoint(live))

    def value(self, number: int, mine: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
        """[N]: the term at place `number` of the objective, at each counted position.

        Raises: RecipeError if a model handed on nothing at a point.
        """
        for points, found in zip(self.points([number]), (mine, theirs), strict=True):
            if point := missing(points, found):
                raise RecipeError(
                    f"objective: a model of this family hands on no {point}; use another term about layers."
                )
        return self._values[number](mine, theirs, layout)

    def _prepared(self, number: int, term: Any) -> Value:
        own, whose = (len(layers_of(model)[1]) for model in self._models)
        match term:
            case Hidden():
                layers = layer_map(term.layers, own, whose)
                return self._hidden(number, HIDDEN[term.distance], self._tap(number, "hidden", layers))
            case Embeddings():
                return self._hidden(number, HIDDEN[term.distance], self._tap(number, "hidden", {0: 0}))
            case Attention():
                layers = layer_map(term.layers, own, whose)
                return _attention(MAPS[term.distance], self._tap(number, "attention", layers))
            case Relations():
                layers = layer_map({term.student_layer or own: term.teacher_layer or whose}, own, whose)
                pairs = [pair for what in term.of for pair in self._tap(number, what, layers)]
                return _relations(term.heads, key_value_heads(self._models[1]), pairs)
            case Similarity():
                return _similarity(ALIKE[term.by], self._tap(number, "hidden", {own: whose})[0])
        raise AssertionError(term)

    def _tap(self, number: int, what: str, layers: dict[int, int]) -> list[tuple[str, str]]:
        pairs = [(f"{what}.{mine}", f"{what}.{theirs}") for mine, theirs in layers.items()]
        self._pairs[number] += pairs
        return pairs

    def _hidden(
        self, number: int, loss: Callable[[Tensor, Tensor], Tensor], pairs: Sequence[tuple[str, str]]
    ) -> Value:
        for mine, _ in pairs:
            self.projectors[_name(number, mine)] = self._projector(number, mine)

        def value(own: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
            found = [
                loss(
                    self.projectors[_name(number, a)](own[a][layout.tokens].float()), theirs[b][layout.tokens]
                )
                for a, b in pairs
            ]
            return layout.by_position(torch.stack(found).mean(0))

        return value

    def _projector(self, number: int, point: str) -> nn.Module:
        """A linear map from the student's width to the teacher's; none where they are the same."""
        own, whose = (int(model.config.get_text_config().hidden_size) for model in self._models)
        if own == whose:
            return nn.Identity()
        made = nn.Linear(own, whose, bias=False)
        generator = torch.Generator().manual_seed(draw_seed(self._seed, "projector", number, point))
        with torch.no_grad():
            made.weight.copy_(torch.randn(made.weight.shape, generator=generator) / math.sqrt(own))
        return made


def _attention(loss: Callable[[Tensor, Tensor], Tensor], pairs: Sequence[tuple[str, str]]) -> Value:
    def value(own: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
        found = torch.stack([loss(own[a], theirs[b]) for a, b in pairs]).mean(0)
        return layout.by_position(found[layout.tokens])

    return value


def _relations(asked: int | None, most: int, pairs: Sequence[tuple[str, str]]) -> Value:
    def value(own: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
        found = []
        for a, b in pairs:
            heads = math.gcd(asked or most, own[a].shape[-1], theirs[b].shape[-1])
            if asked not in (None, heads):
                raise RecipeError(
                    f"objective: relations.heads: {asked} does not divide the widths {own[a].shape[-1]} and "
                    f"{theirs[b].shape[-1]} of student and teacher; {heads} does."
                )
            found.append(losses.relation_kl(own[a], theirs[b], heads, layout.groups))
        return layout.by_position(torch.stack(found).mean(0)[layout.tokens])

    return value


def _similarity(loss: Callable[[Tensor, Tensor], Tensor], pair: tuple[str, str]) -> Value:
    def value(own: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
        return loss(layout.row_means(own[pair[0]]), layout.row_means(theirs[pair[1]]))[layout.rows]

    return value


def _name(number: int, point: str) -> str:
    """A module's name has no dots."""
    return f"{number}-{point.replace('.', '-')}"
