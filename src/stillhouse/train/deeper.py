"""The objective's terms in which the student's own last layer teaches its earlier ones.

An earlier layer is read as the last one is: by the model's own norm and head, or, where a classifier's head reads
something else than a layer's output, by a small head of its own on the mean over the row's tokens, which learns with the
student, is in its checkpoints, and never in its folder.  What the last layer says is held still.  An encoder–decoder's layers
are its decoder's.

Source: Zhang et al. 2019 (Be Your Own Teacher), arXiv:1905.08094; its classifiers after each part are our heads.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import RecipeError
from ..losses import Head
from ..losses.fused import fused_loss
from ..losses.parts import DenseTerm
from ..models.insides import left_out_fault, point_at
from ..models.taps import final_norm, missing, speaking_stack
from ..recipe import DeeperLayers
from ..seeds import draw_seed
from ..tasks import Layout, Scores
from ..teachers import Dense
from .beside import Beside


class DeeperTerms(Beside):
    """All of an objective's `deeper_layers`."""

    file = "exits.safetensors"

    def __init__(
        self, terms: Mapping[int, DeeperLayers], student: PreTrainedModel, outcomes: int, seed: int
    ) -> None:
        """Args: terms: place in the objective -> term; outcomes: V.  Raises: RecipeError for layers that are not there."""
        super().__init__()
        self._stack, stack = speaking_stack(student)
        said = student.config.get_text_config().to_dict()
        if fault := left_out_fault({**said, **({"encoder_layerdrop": 0.0} if self._stack else {})}):
            raise RecipeError(fault)
        if self._stack and student.get_output_embeddings() is None:
            raise RecipeError(
                "objective: deeper_layers of an encoder–decoder is for task: seq2seq; remove the term."
            )
        self._layers = {number: _chosen(term, len(stack)) for number, term in terms.items()}
        self._norm = (
            None if student.get_output_embeddings() is None else (final_norm(student),)
        )  # in a tuple: it is no part of this module
        self.heads = nn.ModuleDict()
        if self._norm is None:
            width = int(student.config.get_text_config().hidden_size)
            for number, layers in self._layers.items():
                for layer in layers:
                    self.heads[f"{number}-{layer}"] = _head(width, outcomes, seed, number, layer)

    @property
    def points(self) -> list[str]:
        """What to tap of the student."""
        return sorted({self._point(layer) for layers in self._layers.values() for layer in layers})

    def _point(self, layer: int) -> str:
        return point_at(self._stack, "hidden", layer)

    def loss(
        self,
        number: int,
        weight: float,
        temperature: float,
        mine: dict[str, Tensor],
        layout: Layout,
        scores: Scores,
        total: Tensor | float,
        dtype: torch.dtype | None,
        weigh: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The term at place `number` of the objective, T²·KL(last ‖ earlier), the mean over its layers.

        Returns: (weight·Σ nats ÷ total, with gradients into the earlier layers, the norm and the head; Σ nats ÷ total, detached).
        Raises: RecipeError if the model handed on nothing at a layer.
        """
        if point := missing(self.points, mine):
            raise RecipeError(f"objective: a model of this family hands on no {point}; remove deeper_layers.")
        says = Dense(scores.hidden.detach(), scores.head.detached()).at(temperature).logits
        layers = self._layers[number]
        loss, value = scores.hidden.new_zeros(()).float(), scores.hidden.new_zeros(()).float()
        for layer in layers:
            hidden, head = self._read(number, layer, mine[self._point(layer)], layout, scores)
            term = (weight / len(layers), DenseTerm(temperature, says))
            one, part = fused_loss(hidden, head, [term], total, dtype, weigh)
            loss, value = loss + one, value + part[0] / len(layers)
        return loss, value

    def _read(
        self, number: int, layer: int, tapped: Tensor, layout: Layout, scores: Scores
    ) -> tuple[Tensor, Head]:
        """[N, H] at the counted positions, and the head that reads them."""
        if self._norm is not None:
            return self._norm[0](tapped[layout.tokens]), scores.head
        own = self.heads[f"{number}-{layer}"]
        assert isinstance(own, nn.Linear)
        return layout.row_means(tapped).to(own.weight.dtype), Head(own.weight, own.bias)


def _chosen(term: DeeperLayers, depth: int) -> list[int]:
    layers = term.layers or [depth // 2]
    if wrong := [layer for layer in layers if not 1 <= layer < depth]:
        raise RecipeError(
            f"objective: deeper_layers: layer {wrong[0]} has none above it to learn from, or is not there; the student has "
            f"{depth}."
        )
    return layers


def _head(width: int, outcomes: int, seed: int, number: int, layer: int) -> nn.Linear:
    made = nn.Linear(width, outcomes)
    generator = torch.Generator().manual_seed(draw_seed(seed, "exit", number, layer))
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape, generator=generator) / math.sqrt(width))
        made.bias.zero_()
    return made
