"""Keep the tokens that some texts use, in the tokenizer and in the model.

Texts that only need kept tokens are cut into the same tokens as before:

    BPE        a token stays with everything that it can be merged from, so every merge that such a text went through is still
               there, and no other one can come before it
    WordPiece  the longest piece that fits is still the longest one
    Unigram    the likeliest path is still there, and still the likeliest; the least likely piece stays too, for what an unknown
               character costs is counted from it (tokenizers and sentencepiece: 10 nats below)

Any other text is cut into smaller pieces: all bytes (or single characters) and all added tokens stay, so that every text that
could be said before can be said after.  The model loses the rows of its embeddings and of its head and nothing else: its
logits on kept tokens are what they were, and its probabilities are those of before given that a kept token comes.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import RecipeError
from ...files import read_json, write_json
from .families import FAMILIES, part_of
from .requests import check_tokenizer

OTHER_FILES = ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "special_tokens_map.json", "spiece.model",
               "tokenizer.model", "sentencepiece.bpe.model")  # fmt: skip
"""What else save_pretrained may have written of the old tokenizer; tokenizer.json alone counts."""


def used_tokens(texts: Iterable[Sequence[int]]) -> Counter[int]:
    """How often each token comes in texts that are token ids already."""
    counts: Counter[int] = Counter()
    for ids in texts:
        counts.update(ids)
    return counts


def kept_tokens(
    tokenizer: PreTrainedTokenizerBase,
    used: Counter[int],
    most: int | None = None,
    named: Collection[int] = (),
) -> list[int]:
    """Rising ids of the tokens that stay: the used ones, what they are merged from, and whatever can say any text.

    Args:
        most: at most so many, the most frequent first; None for all that are used.
        named: tokens that the model cannot do without (`named_tokens`).
    Raises: RecipeError if the tokenizer is of a kind that cannot be trimmed, or `most` is too few to say any text.
    """
    spec = _spec(tokenizer)
    ids = _ids(spec)
    kept = _always(spec, ids) | set(named) & set(ids.values())
    if most is not None and len(kept) > most:
        raise RecipeError(
            f"student.vocabulary: {most:,} tokens are too few; bytes, single characters and special tokens alone are "
            f"{len(kept):,}."
        )
    sources = _merged_from(spec, ids)
    for token, _ in sorted(used.items(), key=lambda pair: (-pair[1], pair[0])):
        needed = _with_sources(token, sources, kept)
        if most is None or len(kept) + len(needed) <= most:
            kept |= needed
    return sorted(kept)


def trim_tokenizer(folder: Path, kept: Sequence[int]) -> None:
    """Rewrite the tokenizer in `folder`, as save_pretrained wrote it, to the tokens `kept` (rising old ids)."""
    spec = read_json(folder / "tokenizer.json")
    renumbered = {old: new for new, old in enumerate(kept)}
    pieces = {number: piece for piece, number in _ids(spec).items()}
    staying = {pieces[old] for old in kept}
    _trim_model(spec["model"], staying, renumbered)
    spec["added_tokens"] = [
        {**token, "id": renumbered[token["id"]]}
        for token in spec["added_tokens"]
        if token["id"] in renumbered
    ]
    if spec.get("post_processor"):
        spec["post_processor"] = _renumbered_processor(spec["post_processor"], renumbered)
    write_json(folder / "tokenizer.json", spec)
    for name in OTHER_FILES:
        (folder / name).unlink(missing_ok=True)
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = {
            str(renumbered[int(old)]): token for old, token in config["added_tokens_decoder"].items()
        }
    write_json(folder / "tokenizer_config.json", config)


def named_tokens(config: Any) -> set[int]:
    """What a model's configuration calls by its id: its end, its padding, what a target begins with."""
    named = config.get_text_config().to_dict()
    return {value for name, value in named.items() if name.endswith("_token_id") and isinstance(value, int)}


@torch.no_grad()
def trim_model(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """The same model, changed in place, with the embeddings and the head's rows of the tokens `kept` alone."""
    rows = torch.tensor(kept)
    config = model.config.get_text_config()
    tables = {id(module) for module in _tables(model)}
    renumber = {old: new for new, old in enumerate(kept)}
    for path, module in model.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            whole = f"{path}.{name}".lstrip(".")
            at = 0 if id(module) in tables and tensor.dim() else _vocabulary_axis(whole, tensor.dim(), config)
            if at is not None and tensor.shape[at] != len(kept):  # tied ones are met twice
                tensor.data = tensor.data.index_select(at, rows)
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings != len(module.weight):
            module.num_embeddings = len(module.weight)
            if module.padding_idx is not None:
                module.padding_idx = renumber.get(module.padding_idx)
        elif isinstance(module, torch.nn.Linear):
            module.out_features = module.weight.shape[0]
    known = [model.config, config] + ([model.generation_config] if model.can_generate() else [])
    for settings in {id(one): one for one in known if one is not None}.values():
        _renumber_settings(settings, renumber)
        for name in SIZES:
            if name in settings.to_dict():
                setattr(settings, name, len(kept))
    config.vocab_size = len(kept)
    return model


# ── tokenizer.json ──────────────────────────────────────────────────────────────────────────────────────────────────


def _spec(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    check_tokenizer(type(tokenizer).__name__, spec["model"].get("type"))
    return spec


def _ids(spec: dict[str, Any]) -> dict[str, int]:
    """Piece -> id, added tokens too."""
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [piece, score]
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in spec["added_tokens"]}}


def _always(spec: dict[str, Any], ids: dict[str, int]) -> set[int]:
    """What can say any text, and what programs ask for by name."""
    model = spec["model"]
    prefix = model.get("continuing_subword_prefix") or "##"
    kept = {token["id"] for token in spec["added_tokens"]}
    for piece, number in ids.items():
        bare = piece.removeprefix(prefix)
        if len(bare) <= 1 or (piece.startswith("<0x") and piece.endswith(">")):
            kept.add(number)
    if model.get("unk_token") is not None:
        kept.add(ids[model["unk_token"]])
    if model.get("unk_id") is not None:
        kept.add(model["unk_id"])
    if isinstance(model["vocab"], list):
        kept.add(min(range(len(model["vocab"])), key=lambda number: model["vocab"][number][1]))
    return kept


def _merged_from(spec: dict[str, Any], ids: dict[str, int]) -> dict[int, set[int]]:
    """Token -> the tokens of every merge that makes it; empty for what is no BPE."""
    found: dict[int, set[int]] = {}
    for left, right in _merges(spec["model"]):
        made = ids.get(left + right.removeprefix(spec["model"].get("continuing_subword_prefix") or ""))
        if made is not None:
            found.setdefault(made, set()).update((ids[left], ids[right]))
    return found


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Old files have "left right", new ones [left, right]."""
    found = []
    for merge in model.get("merges") or []:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        found.append((left, right))
    return found


def _with_sources(token: int, sources: dict[int, set[int]], kept: set[int]) -> set[int]:
    """A token and what it is merged from, as far as that is not kept yet."""
    needed: set[int] = set()
    waiting = [token]
    while waiting:
        one = waiting.pop()
        if one not in kept and one not in needed:
            needed.add(one)
            waiting += sources.get(one, ())
    return needed


def _trim_model(model: dict[str, Any], staying: set[str], renumbered: dict[int, int]) -> None:
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in renumbered]
        if model.get("unk_id") is not None:
            model["unk_id"] = renumbered[model["unk_id"]]
        return
    model["vocab"] = {
        piece: renumbered[number] for piece, number in model["vocab"].items() if number in renumbered
    }
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            list(pair)
            for pair in _merges(model)
            if {*pair, pair[0] + pair[1].removeprefix(prefix)} <= staying
        ]


def _renumbered_processor(processor: dict[str, Any], renumbered: dict[int, int]) -> dict[str, Any]:
    """A post-processor knows special tokens by id: templates in `ids`, BERT's and RoBERTa's as [token, id]."""
    made = dict(processor)
    if made.get("type") == "Sequence":
        made["processors"] = [_renumbered_processor(one, renumbered) for one in made["processors"]]
    if "special_tokens" in made:
        made["special_tokens"] = {
            name: {**token, "ids": [renumbered[number] for number in token["ids"]]}
            for name, token in made["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if isinstance(made.get(name), list):
            made[name] = [made[name][0], renumbered[made[name][1]]]
    return made


# ── the model ───────────────────────────────────────────────────────────────────────────────────────────────────────


SIZES = ("vocab_size", "decoder_vocab_size")
"""Fields of a configuration that count the tokens (the second is Marian's)."""


def _tables(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules whose rows are tokens.  An encoder–decoder's two sides each have their own embeddings, tied to the model's or not."""
    found = [model.get_input_embeddings(), model.get_output_embeddings()]
    if model.config.is_encoder_decoder:
        found += [side.get_input_embeddings() for side in (model.get_encoder(), model.get_decoder())]
    return [one for one in found if isinstance(one, torch.nn.Embedding | torch.nn.Linear)]


def _vocabulary_axis(name: str, dimensions: int, config: Any) -> int | None:
    """Which dimension of a tensor is the vocabulary, as its family's table says; of other families the tables alone are known, and
    the bias that BART's relatives add to their logits."""
    if name == "final_logits_bias":
        return dimensions - 1
    family, module = FAMILIES.get(config.model_type), name.rpartition(".")[0] or name
    if family is None or dimensions == 0 or not any(f".{module}".endswith(f".{end}") for end in family.axes):
        return None
    axes = part_of(name, dimensions, family).axes
    return axes.index("V") if "V" in axes else None


def _renumber_settings(settings: Any, renumber: dict[int, int]) -> None:
    """Every "…_token_id" and list of tokens of a configuration; a token that is gone is one that is not named."""
    for name, value in settings.to_dict().items():
        if name == "bad_words_ids" and value is not None:  # Marian's padding is never written
            words = [[renumber[one] for one in word] for word in value if set(word) <= set(renumber)]
            setattr(settings, name, words or None)
        if not name.endswith(("_token_id", "_token_ids", "suppress_tokens")) or value is None:
            continue
        if isinstance(value, list):
            setattr(settings, name, [renumber[one] for one in value if one in renumber])
        elif isinstance(value, int):
            setattr(settings, name, renumber.get(value))
