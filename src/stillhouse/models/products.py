"""What an adapter's `target_modules` name: a model's products, by the ends of their names.  No weights are read, and no torch."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import RecipeError
from .described import model_config, tensors_in
from .shrink.families import FAMILIES


def ends_with(name: str, end: str) -> bool:
    """Whether a dotted name ends so, by whole parts."""
    return f".{name}".endswith(f".{end}")


def no_product(end: str, products: Iterable[str]) -> RecipeError:
    """The error for an end that none of the student's products has."""
    known = sorted({name.rpartition(".")[2] for name in products})
    return RecipeError(
        f"student.adapter.target_modules: the student has no product {end!r}; it has {', '.join(known)}: name some of these."
    )


def check_targets(ends: Iterable[str], folder: Path) -> None:
    """Whether a student of the family of the model in `folder` has such products, by its files' headers.

    Names are compared behind their layer's number, for the student may have other layers.  A head may be missing in the files
    (tied, or not drawn yet), and other families' files may call things otherwise than the loaded model does; of both, training tells.
    Raises: RecipeError as training would.
    """
    family = FAMILIES.get(str(model_config(folder).get("model_type")))
    if family is None:
        return
    matrices = {end: axes for end, axes in family.axes.items() if len(axes) == 2}
    inner = [end for end, axes in matrices.items() if not set(axes) & set("V.")]
    weights = [name.removesuffix(".weight") for name in tensors_in(folder) if name.endswith(".weight")]
    products = [name for name in weights if any(ends_with(name, end) for end in inner)]
    absent = [end for end in matrices if not any(ends_with(name, end) for name in products)]
    known = {_behind_its_layer(name) for name in [*products, *absent]}
    for end in ends:
        wanted = _behind_its_layer(end)
        if not any(ends_with(name, wanted) or ends_with(wanted, name) for name in known):
            raise no_product(end, products)


def _behind_its_layer(name: str) -> str:
    """'model.layers.3.mlp.up_proj' -> 'mlp.up_proj'."""
    return re.split(r"(?:^|\.)\d+\.", name)[-1]
