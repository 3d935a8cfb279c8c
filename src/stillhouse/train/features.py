"""The objective's terms about layers: what to tap, through which projectors, and into which positions the values go."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError
from ..losses import features as losses
from ..models.insides import left_out_fault, nothing_at, point_at
from ..models.taps import AttentionMaps, config_of, key_value_heads, layer_map, missing, stacks_of
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

PROJECTORS = "projectors.safetensors"

Tapped = dict[str, Tensor]
Value = Callable[[Tapped, Tapped, Layout], Tensor]
"""(the student's taps, the teacher's, how tokens lie in the batch) -> [N], one number a counted position."""


class FeatureTerms(Beside):
    """Everything that compares layers in an objective.  Its projectors learn with the student and never become part of it.

    An encoder–decoder's two stacks are compared apart, each with its like and by a layer map of its own.  At a token t of the target
    of row r, a term's value is ½·(the decoder's at t + the mean of the encoder's over the tokens of r's source).
    """

    file = PROJECTORS

    def __init__(
        self, terms: Mapping[int, Any], student: PreTrainedModel, teacher: PreTrainedModel, seed: int
    ) -> None:
        """Args: terms: place in the objective -> term."""
        super().__init__()
        if fault := left_out_fault(student.config.get_text_config().to_dict()):
            raise RecipeError(fault)
        self.projectors = nn.ModuleDict()
        self._models, self._seed = (student, teacher), seed  # in a tuple: they are not parts of this module
        self._own, self._whose = (
            {name: len(layers) for name, layers in stacks_of(model).items()} for model in self._models
        )
        _refuse_unlike(student, teacher)
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

        Raises: RecipeError if a model handed on nothing at a point, or not what its texts are.
        """
        for points, found in zip(self.points([number]), (mine, theirs), strict=True):
            if point := missing(points, found):
                raise RecipeError(nothing_at(point))
            if point := next((each for each in points if not _fits(each, found[each], layout)), None):
                raise RecipeError(
                    f"objective: {point} of this family does not have one row a text and one place a token (it is padded, cut "
                    "up or turned around inside); use another term about layers, or soft and hard ones."
                )
        if self._models[0].training and torch.is_grad_enabled() and not _learns(self._pairs[number], mine):
            raise RecipeError(
                "objective: what this term compares inside the layers has no gradient here; with gradient checkpointing, set its "
                "use_reentrant to False."
            )
        return self._values[number](mine, theirs, layout)

    def _prepared(self, number: int, term: Any) -> Value:
        """Raises: RecipeError for layers that are not there, or parts that are not known."""
        values = {stack: self._of_stack(number, term, stack) for stack in self._own}
        return values[""] if "" in values else _of_both(**values)

    def _of_stack(self, number: int, term: Any, stack: str) -> Value:
        own, whose = self._own[stack], self._whose[stack]
        match term:
            case Hidden():
                layers = layer_map(term.layers, own, whose, stack)
                return self._hidden(number, HIDDEN[term.distance], self._tap(number, stack, "hidden", layers))
            case Embeddings():
                at = self._tap(number, stack, "hidden", {0: 0})
                return self._hidden(number, HIDDEN[term.distance], at)
            case Attention():
                layers = layer_map(term.layers, own, whose, stack)
                return _attention(MAPS[term.distance], self._tap(number, stack, "attention", layers))
            case Relations():
                layers = layer_map(
                    {term.student_layer or own: term.teacher_layer or whose}, own, whose, stack
                )
                pairs = [pair for what in term.of for pair in self._tap(number, stack, what, layers)]
                return _relations(term.heads, key_value_heads(self._models[1], stack), pairs)
            case Similarity():
                return _similarity(ALIKE[term.by], self._tap(number, stack, "hidden", {own: whose})[0])
        raise AssertionError(term)

    def _tap(self, number: int, stack: str, what: str, layers: dict[int, int]) -> list[tuple[str, str]]:
        pairs = [
            (point_at(stack, what, mine), point_at(stack, what, theirs)) for mine, theirs in layers.items()
        ]
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
        stack = point.rpartition(".hidden.")[0]
        own, whose = (int(config_of(model, stack).hidden_size) for model in self._models)
        if own == whose:
            return nn.Identity()
        made = nn.Linear(own, whose, bias=False)
        generator = torch.Generator().manual_seed(draw_seed(self._seed, "projector", number, point))
        with torch.no_grad():
            made.weight.copy_(torch.randn(made.weight.shape, generator=generator) / math.sqrt(own))
        return made


def _of_both(encoder: Value, decoder: Value) -> Value:
    """At each counted position the mean of the decoder's value there and the encoder's of its row."""

    def value(own: Tapped, theirs: Tapped, layout: Layout) -> Tensor:
        if layout.source is None:
            raise RecipeError(
                "objective: terms about layers of an encoder–decoder are for task: seq2seq; use soft and hard terms."
            )
        of_source = encoder(own, theirs, layout.source)[layout.rows]
        return (of_source + decoder(own, theirs, layout)) / 2

    return value


def _learns(pairs: Sequence[tuple[str, str]], mine: Tapped) -> bool:
    """Whether a gradient can come of what lies inside layers; what they hand on always has one, or a projector behind it."""
    inside = [mine[point] for point, _ in pairs if ".hidden." not in f".{point}"]
    return not inside or any(found.requires_grad for found in inside)


def _fits(point: str, found: Tensor, layout: Layout) -> bool:
    """Whether what was handed on has a row for each text and a place for each token that its stack reads; of a map, two."""
    mask = (layout.source or layout).tokens if point.startswith("encoder.") else layout.tokens
    rows, length = mask.shape
    if found.dim() == 4:
        return found.shape[0] == rows and found.shape[2:] == (length, length)
    return found.shape[:2] == (rows, length)


def _refuse_unlike(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Raises: RecipeError where one is an encoder–decoder and the other is not."""
    if student.config.is_encoder_decoder != teacher.config.is_encoder_decoder:
        raise RecipeError(
            f"objective: terms about layers compare like with like, and of {type(student).__name__} and {type(teacher).__name__} one "
            "is an encoder–decoder; use soft and hard terms."
        )


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
