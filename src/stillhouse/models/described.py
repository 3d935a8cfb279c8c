"""What the files in a model's folder say of it, without its being loaded."""

import json
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .shrink.skeleton import Skeleton


def skeleton_in(folder: Path) -> Skeleton:
    """Of the model in `folder`, by its files' headers.  Raises: RecipeError for a family that cannot be cut."""
    return Skeleton.of(model_config(folder), tensors_in(folder))


def tensors_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters of the model in `folder`, tied ones once."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: shape for path in files for name, shape in _tensors(path).items()}


def _tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters in a safetensors file, from its header."""
    with path.open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    return {
        name: tuple(entry["shape"]) for name, entry in header.items() if name.endswith((".weight", ".bias"))
    }


def layer_count(config: dict[str, Any]) -> int | None:
    """Layers of the (text) model that a config.json describes, by the names that families use."""
    inner = config.get("text_config")
    for one in (inner if isinstance(inner, dict) else {}, config):
        for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            if isinstance(one.get(name), int):
                return int(one[name])
    return None


def speaking_depth(config: dict[str, Any]) -> int | None:
    """Layers of the stack that ends in the head, of a model that a config.json describes: an encoder–decoder's decoder."""
    if not config.get("is_encoder_decoder"):
        return layer_count(config)
    counts = (config.get(name) for name in ("num_decoder_layers", "decoder_layers"))
    return next((count for count in counts if isinstance(count, int)), None)


def model_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder."""
    return json_in(folder / "config.json")


def json_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file.  Raises: RecipeError if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(
            f"{path}: is not valid JSON ({error}); save it again with save_pretrained."
        ) from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: is no JSON object; save it again with save_pretrained.")
    return found


def cut_short(path: Path) -> str | None:
    """Why a safetensors file cannot be whole, by its header alone; None if nothing speaks against it."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length + 8 > size:
            return "its header is longer than the file"
        try:
            header = json.loads(handle.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            return f"its header cannot be read: {error}"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"it has {size:,} bytes instead of {expected:,}"
