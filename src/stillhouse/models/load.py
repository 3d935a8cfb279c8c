"""A folder or a .gguf file -> a model, without running any code that came with it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import RecipeError, TeacherError
from ..files import atomic_folder, hash_file, manifest_fault
from ..registry import require

Say = Callable[[str], None]


def as_folder(path: Path, cache: Path, auto_class: str, say: Say) -> Path:
    """`path` itself, or for a .gguf file a folder in `cache` with the same weights as safetensors, made once.

    GGUF weights are usually quantised; what comes out are their dequantised float32 values, not the originals.
    """
    if path.is_dir():
        return path
    if path.suffix != ".gguf":
        raise RecipeError(f"{path}: is no model folder and no .gguf file.")
    require("gguf", "reading a .gguf model")
    folder = cache / "gguf" / f"{path.stem}-{auto_class}-{hash_file(path)[:12]}"
    if folder.exists():
        fault = manifest_fault(folder)
        if fault is None:
            return folder
        say(f"{folder}: {fault}; converting again")
    say(f"converting {path.name} to safetensors, once")
    with atomic_folder(folder) as part:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        model = getattr(transformers, auto_class).from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return folder


def load_config(folder: Path) -> Any:
    """The model's configuration; no weights are read."""
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{folder}: holds no model configuration that transformers reads: {_first(error)}"
        ) from error


def label_names(config: Any) -> list[str]:
    """A classifier's labels in the order of its outputs, as its configuration names them."""
    named = config.id2label or {}
    return [str(named[number]) for number in sorted(named, key=int)]


def load_model(
    folder: Path,
    auto_class: str,
    dtype: torch.dtype = torch.float32,
    head_seed: int | None = None,
    **changes: Any,
) -> PreTrainedModel:
    """The model in `folder`, in eval mode; safetensors only.  `changes` override fields of its configuration.

    Args: head_seed: weights that the folder does not have are drawn from this seed, and a head of another size is
        replaced; without it that is refused, for a teacher must not say random things.
    Raises: TeacherError in a sentence, whatever the library raised.
    """
    model, missing = _read(folder, auto_class, dtype, head_seed, **changes)
    if missing and head_seed is None:
        names = ", ".join(missing[:3])
        raise TeacherError(
            f"{folder}: its weights have no {names}, which a {auto_class} needs; "
            "it is a model for something else, or an incomplete copy."
        )
    return model


def missing_weights(folder: Path, auto_class: str) -> list[str]:
    """Names of what such a model needs and the folder does not have.  Raises: TeacherError as `load_model` does."""
    return _read(folder, auto_class, torch.float32, 0)[1]


def _read(
    folder: Path, auto_class: str, dtype: torch.dtype, head_seed: int | None, **changes: Any
) -> tuple[PreTrainedModel, list[str]]:
    """(the model, names of the weights that are drawn)."""
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(head_seed or 0)
            model, found = getattr(transformers, auto_class).from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=head_seed is not None,
                **changes,
            )
    except Exception as error:  # safetensors, tokenizers and torch each raise their own
        raise TeacherError(f"{folder}: no {auto_class} can be loaded from it: {_first(error)}") from error
    return model.eval(), sorted(found["missing_keys"])


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, with a padding token (its end token, if it has none of its own)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise RecipeError(f"{folder}: holds no tokenizer that transformers reads: {_first(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    found: PreTrainedTokenizerBase = tokenizer
    return found


def parameters(model: torch.nn.Module) -> int:
    """Parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def same_tokenizer(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """Why two tokenizers are not the same, or None if they are.

    Equal width proves nothing: what counts is that every piece has the same id and that a probe text comes out alike.
    """
    mine, theirs = one.get_vocab(), other.get_vocab()
    if mine != theirs:
        differing = sum(theirs.get(piece) != number for piece, number in mine.items())
        return f"{differing:,} of {len(mine):,} pieces differ ({len(theirs):,} on the other side)"
    probe = "Héllo  wörld,\n\tit's 12345 <3 — naïve CO₂ 東京! don't"
    if one(probe)["input_ids"] != other(probe)["input_ids"]:
        return "the same pieces, but a probe text is cut differently"
    if one.eos_token_id != other.eos_token_id:
        return f"the end token is {one.eos_token!r} here and {other.eos_token!r} there"
    return None


def _first(error: Exception) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
