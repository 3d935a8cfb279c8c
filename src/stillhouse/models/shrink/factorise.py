"""Narrower token embeddings, with a projection to the hidden width behind them (Lan et al. 2019, ALBERT, arXiv:1909.11942).

For families whose layers read Linear(LayerNorm(token + position + type)): ELECTRA, and BERT once it is one.  LayerNorm takes the mean over the
channels away and divides by their spread, and a rotation that leaves the direction (1, …, 1) alone changes neither.  So the
three tables are turned to their common principal axes within what LayerNorm sees, cut there, and turned back inside the
projection, which also takes over the norm's scale and shift.  Embeddings that have no more directions than are kept lose
nothing but rounding.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import RecipeError
from .families import family_of
from .projected import as_electra

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


@torch.no_grad()
def factorise_embeddings(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """The same model with token embeddings of width `size`.

    Raises: RecipeError for a family that has no projection behind its embeddings, or a size that is none.
    """
    family = family_of(model.config.to_dict())
    if family.projected:
        model = as_electra(model)
        family = family_of(model.config.to_dict())
    if family.embedding is None:
        raise RecipeError(
            "student.from_teacher.embedding_size: this family has no projection behind its embeddings, so they are as wide "
            "as its layers (ELECTRA's and BERT's may be narrower); leave it out."
        )
    old = model.state_dict()
    base = next(name for name in old if name.endswith("word_embeddings.weight")).rpartition(
        "embeddings.word"
    )[0]
    have = old[f"{base}embeddings.word_embeddings.weight"].shape[1]
    if not 2 <= size < have:
        raise RecipeError(
            f"student.from_teacher.embedding_size: must be between 2 and {have - 1}, for the teacher's embeddings are {have} "
            f"wide, not {size}."
        )
    config = copy.deepcopy(model.config)
    setattr(config, family.embedding, size)
    with torch.random.fork_rng():
        made: Any = type(model)(config)
    new = dict(old)
    tables = [old[f"{base}embeddings.{name}.weight"].double() for name in TABLES]
    down = _principal(tables, size)
    for name, table in zip(TABLES, tables, strict=True):
        new[f"{base}embeddings.{name}.weight"] = (table @ down).to(
            old[f"{base}embeddings.{name}.weight"].dtype
        )
    scale, shift = (old[f"{base}embeddings.LayerNorm.{kind}"].double() for kind in ("weight", "bias"))
    weight, bias = _projection(old, f"{base}{family.projection}", have)
    new[f"{base}embeddings.LayerNorm.weight"] = torch.ones(size)
    new[f"{base}embeddings.LayerNorm.bias"] = torch.zeros(size)
    # the spread of `size` channels is that of `have` ones, spread over fewer
    back = math.sqrt(have / size) * down.T
    new[f"{base}{family.projection}.weight"] = ((weight * scale) @ back.T).float()
    new[f"{base}{family.projection}.bias"] = (bias + weight @ shift).float()
    made.load_state_dict(new, strict=True)
    result: PreTrainedModel = made.to(model.dtype).eval()
    return result


def _projection(old: dict[str, Tensor], name: str, have: int) -> tuple[Tensor, Tensor]:
    """The projection that is there, or one that changes nothing."""
    if f"{name}.weight" in old:
        return old[f"{name}.weight"].double(), old[f"{name}.bias"].double()
    return torch.eye(have, dtype=torch.float64), torch.zeros(have, dtype=torch.float64)


def _principal(tables: list[Tensor], size: int) -> Tensor:
    """[have, size]: the best `size` − 1 directions that LayerNorm sees, laid into the space that it sees of `size` channels."""
    whole = torch.cat([table - table.mean(1, keepdim=True) for table in tables])
    _, axes = torch.linalg.eigh(whole.T @ whole)
    turned: Tensor = axes.flip(1)[:, : size - 1] @ _without_mean(size).T
    return turned


def _without_mean(size: int) -> Tensor:
    """[size, size − 1]: an orthonormal basis of all vectors whose mean is 0."""
    start = torch.cat([torch.ones(size, 1), torch.eye(size)[:, : size - 1]], dim=1).double()
    basis: Tensor = torch.linalg.qr(start)[0]
    return basis[:, 1:]
