"""A new shape of the teacher's family: random weights, started from the teacher's where shapes allow."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from ...errors import RecipeError
from ...registry import did_you_mean
from ..taps import layers_of
from .cut import every_nth


def changed_config(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of a configuration with some fields changed.  Raises: RecipeError for a field the family does not have."""
    known = config.to_dict()
    for field in changes:
        if field not in known:
            raise RecipeError(
                f"student.from_config.config: {type(config).__name__} has no {field!r}.{did_you_mean(field, known)}"
            )
    try:
        return type(config).from_dict({**known, **changes})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"student.from_config.config: {error}") from error


def from_config(config: Any, auto_class: str, seed: int) -> PreTrainedModel:
    """A model of that shape with random weights that follow from `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = getattr(transformers, auto_class).from_config(config)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(f"student.from_config.config: {type(config).__name__}: {error}") from error
    made: PreTrainedModel = model.float().eval()
    return made


@torch.no_grad()
def project_embeddings(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Start the student's token embeddings from the teacher's, turned to their principal axes and cut to its width.

    The projection keeps as much of the distances between tokens as that width can hold; it is scaled to the standard
    deviation with which the student's family initialises embeddings, so that the layers above see what they expect.
    """
    ours, theirs = student.get_input_embeddings().weight, teacher.get_input_embeddings().weight.float()
    if ours.shape[0] != theirs.shape[0]:
        raise RecipeError(
            "student.from_config.embeddings: the vocabularies differ in size; use embeddings: random."
        )
    if ours.shape[1] > theirs.shape[1]:
        raise RecipeError(
            "student.from_config.embeddings: the student is wider than the teacher; use embeddings: random."
        )
    centred = theirs - theirs.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    projected = centred @ axes.flip(1)[:, : ours.shape[1]]
    ours.copy_(projected * (ours.std() / projected.std()))


@torch.no_grad()
def copy_layers(student: PreTrainedModel, teacher: PreTrainedModel) -> dict[str, int]:
    """Copy from the teacher's layers, evenly spread over the student's, every tensor that has the same shape in both; and so
    from what is outside the layers, but for the token embeddings (see `project_embeddings`).

    Returns: {"tensors": copied, "of": all}.
    Raises: RecipeError if no tensor of a layer fits.
    """
    (mine, ours), (other, theirs) = layers_of(student), layers_of(teacher)
    given, fitted, inside = teacher.state_dict(), 0, 0
    spread = every_nth(len(theirs), len(ours)) if len(ours) <= len(theirs) else None
    targets = student.state_dict()
    embeddings = (student.get_input_embeddings(), student.get_output_embeddings())
    tables = {module.weight.data_ptr() for module in embeddings if module is not None}
    for name, tensor in targets.items():
        source = name
        if name.startswith(f"{mine}."):
            number, _, rest = name.removeprefix(f"{mine}.").partition(".")
            place = spread[int(number)] if spread else int(number) * len(theirs) // len(ours)
            source = f"{other}.{place}.{rest}"
        fits = source in given and given[source].shape == tensor.shape
        if fits and tensor.data_ptr() not in tables:
            tensor.copy_(given[source])
            fitted += 1
            inside += source != name or name.startswith(f"{mine}.")
    if not inside:
        raise RecipeError(
            "student.from_config.layers: no weight of the teacher's layers has the shape of the student's; keep hidden_size "
            "or use from_teacher, which cuts them to size, or layers: random."
        )
    return {"tensors": fitted, "of": len(targets)}
