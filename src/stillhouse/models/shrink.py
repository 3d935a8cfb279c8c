"""Students made from teachers: some of the layers, or a narrower shape that starts from the teacher's embeddings."""

import copy
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from ..errors import RecipeError
from ..registry import did_you_mean
from .taps import layers_of


def every_nth(have: int, keep: int) -> list[int]:
    """`keep` of `have` layer numbers, evenly spread, the first and the last among them (keep > 1)."""
    if keep == 1:
        return [0]
    return [round(number * (have - 1) / (keep - 1)) for number in range(keep)]


def most_influential(influence: torch.Tensor, keep: int) -> list[int]:
    """The `keep` layer numbers of greatest influence, in their order in the model."""
    return sorted(torch.topk(influence, keep).indices.tolist())


def keep_layers(model: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
    """An ordinary model of the same family with only the layers `keep`, all weights copied.

    The new model is built from a changed configuration, so that everything a layer knows of its own place (its index
    in the key-value cache, its kind of attention) is right.
    """
    name, layers = layers_of(model)
    if keep[-1] >= len(layers):
        raise RecipeError(
            f"student.from_teacher.layers: the teacher has layers 0 to {len(layers) - 1}, no {keep[-1]}."
        )
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    for field, value in text.to_dict().items():
        if isinstance(value, list) and len(value) == len(layers):
            setattr(text, field, [value[number] for number in keep])
    text.num_hidden_layers = len(keep)
    student = type(model)(config)
    renamed = {f"{name}.{old}.": f"{name}.{new}." for new, old in enumerate(keep)}
    weights = {}
    for key, value in model.state_dict().items():
        if not key.startswith(f"{name}."):
            weights[key] = value
            continue
        old = f"{name}.{key.removeprefix(f'{name}.').partition('.')[0]}."
        if old in renamed:
            weights[renamed[old] + key.removeprefix(old)] = value
    student.load_state_dict(weights, strict=True)
    if model.can_generate():
        student.generation_config = copy.deepcopy(model.generation_config)
    for parameter in student.parameters():  # not .to(dtype): that would round the rotary frequencies as well
        parameter.data = parameter.data.to(model.dtype)
    return student.eval()


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
