"""Text from a model, a batch at a time, with its key-value cache."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


@torch.no_grad()
def write_on(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    vocabulary: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> list[list[int]]:
    """What the model writes after each prompt, or as the target of each source, its end token included; drawn from its whole
    distribution if `top_p` is 1, but for what `_settings` says of encoder–decoders.

    Args: vocabulary: tokens that the tokenizer has; the head's further rows are never drawn.

    The model is in eval mode meanwhile, and the global generator is left as it was.
    """
    apart = bool(model.config.is_encoder_decoder)
    said = model.config.get_text_config().to_dict()
    longest = said.get("max_decoder_position_embeddings", said.get("max_position_embeddings"))
    if longest is not None and apart:
        max_new_tokens = min(max_new_tokens, longest)
    elif longest is not None:  # of a prompt that leaves no room, the end is kept
        prompts = [prompt[-max(1, longest - max_new_tokens) :] for prompt in prompts]
    drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    settings = _settings(model, tokenizer, vocabulary, max_new_tokens=max_new_tokens, **drawn)
    ids, mask = _padded(prompts, settings.pad_token_id, left=not apart)
    was_training = model.training
    model.eval()
    places = [model.device] if model.device.type != "cpu" else []
    with torch.random.fork_rng(places, device_type=model.device.type):
        torch.manual_seed(seed)
        whole = _by_itself(model, settings, ids, mask)
    model.train(was_training)
    return _new(model, tokenizer, whole, ids)


@torch.no_grad()
def write_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    *,
    vocabulary: int,
    max_new_tokens: int,
    slots: int,
) -> list[list[int]]:
    """The likeliest target of each source, token by token, its end token included; `slots` of them at a time."""
    settings = _settings(model, tokenizer, vocabulary, max_new_tokens=max_new_tokens, do_sample=False)
    found: list[list[int]] = []
    for start in range(0, len(sources), slots):
        ids, mask = _padded(sources[start : start + slots], settings.pad_token_id, left=False)
        found += _new(model, tokenizer, _by_itself(model, settings, ids, mask), ids)
    return found


def _settings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: int, **how: Any
) -> GenerationConfig:
    """`how` to write, and nothing of the model's own settings, whose beams, penalties and bounds would bias what is written, but for
    those without which it writes something else: where it stops, and what an encoder–decoder's targets begin with.

    The head's rows beyond `vocabulary` are never written, nor is an encoder–decoder's padding: no target holds it, and some families
    (Marian) give it a probability that means nothing.
    """
    pad, ends, own = tokenizer.pad_token_id or 0, end_tokens(model, tokenizer), model.generation_config
    banned = list(range(vocabulary, model.get_output_embeddings().weight.shape[0]))
    if model.config.is_encoder_decoder:
        banned += [pad] if pad not in ends else []
        how["decoder_start_token_id"] = model.config.to_dict().get("decoder_start_token_id")
        how["forced_bos_token_id"] = None if own is None else own.forced_bos_token_id
    return GenerationConfig(suppress_tokens=banned or None, pad_token_id=pad, eos_token_id=ends, **how)


def _padded(prompts: Sequence[Sequence[int]], pad: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """([B, T] tokens, [B, T] which of them are no padding): on the left of what is to be gone on from."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        first = length - len(prompt) if left else 0
        ids[row, first : first + len(prompt)] = torch.tensor(prompt)
        mask[row, first : first + len(prompt)] = 1
    return ids, mask


def _new(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, whole: torch.Tensor, ids: torch.Tensor
) -> list[list[int]]:
    """Of what came out of `generate`, what stands behind the prompts, or the token that every target begins with."""
    first, ends = 1 if model.config.is_encoder_decoder else ids.shape[1], set(end_tokens(model, tokenizer))
    return [_until(row, ends) for row in whole[:, first:].tolist()]


def _by_itself(
    model: PreTrainedModel, settings: GenerationConfig, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """What it writes with these settings alone: transformers fills what they leave open from the model's own."""
    own, model.generation_config = model.generation_config, settings
    more: dict[str, Any] = {}
    if (
        model.config.is_encoder_decoder
    ):  # transformers makes one as deep as T5's encoder, whatever its decoder is
        more["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
    try:
        made: torch.Tensor = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=True, **more
        )
    finally:
        model.generation_config = own
    return made


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token at which the model stops."""
    config = model.generation_config
    own = config.eos_token_id if config is not None else None
    found = own if isinstance(own, list) else [own]
    ends = {token for token in [*found, tokenizer.eos_token_id] if token is not None}
    if not ends and model.config.is_encoder_decoder and tokenizer.sep_token_id is not None:
        return [tokenizer.sep_token_id]  # BERT's texts, and so its targets
    return sorted(ends)


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first end token, with it; what follows is padding."""
    stop = next((number for number, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: stop + 1]
