"""Text from a model, a batch at a time, with its key-value cache."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


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
    """What the model writes after each prompt, its end token included; drawn from its whole distribution if `top_p` is 1.

    Args: vocabulary: tokens that the tokenizer has; the head's further rows are never drawn.

    The model is in eval mode meanwhile, and the global generator is left as it was.  Prompts are padded on the left.
    """
    longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
    if longest is not None:  # of a prompt that leaves no room, the end is kept
        prompts = [prompt[-max(1, longest - max_new_tokens) :] for prompt in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, length - len(prompt) :] = torch.tensor(prompt)
        mask[number, length - len(prompt) :] = 1
    padding = list(range(vocabulary, model.get_output_embeddings().weight.shape[0]))
    ends = end_tokens(model, tokenizer)
    was_training, settings = model.training, model.generation_config
    model.eval()
    model.generation_config = (
        GenerationConfig()
    )  # its own (min_p, no_repeat_ngram_size, …) would bias what is drawn
    places = [model.device] if model.device.type != "cpu" else []
    with torch.random.fork_rng(places, device_type=model.device.type):
        torch.manual_seed(seed)
        whole = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            suppress_tokens=padding or None,  # rows of the head that are no tokens
            max_new_tokens=max_new_tokens,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=ends,
        )
    model.train(was_training)
    model.generation_config = settings
    return [_until(row, set(ends)) for row in whole[:, length:].tolist()]


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
    """The likeliest target of each source, token by token, its end token included; `slots` of them at a time.

    Of an encoder–decoder's own settings those stay without which it writes something else: what its targets begin with.  Beams
    and penalties do not, and neither padding nor the head's rows beyond `vocabulary` are ever written.
    """
    pad, ends, own = tokenizer.pad_token_id or 0, end_tokens(model, tokenizer), model.generation_config
    head = model.get_output_embeddings().weight.shape[0]
    banned = [*range(vocabulary, head), *([pad] if pad not in ends else [])]
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        suppress_tokens=banned or None,
        decoder_start_token_id=model.config.to_dict().get("decoder_start_token_id"),
        forced_bos_token_id=None if own is None else own.forced_bos_token_id,
        pad_token_id=pad,
        eos_token_id=ends,
    )
    found: list[list[int]] = []
    for start in range(0, len(sources), slots):
        some = sources[start : start + slots]
        length = max(map(len, some))
        ids = torch.tensor([[*source, *[pad] * (length - len(source))] for source in some])
        mask = torch.tensor([[1] * len(source) + [0] * (length - len(source)) for source in some])
        made = _by_itself(model, settings, ids, mask)
        found += [_until(row, set(ends)) for row in made[:, 1:].tolist()]
    return found


def _by_itself(
    model: PreTrainedModel, settings: GenerationConfig, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """What it writes with these settings alone: transformers fills what they leave open from the model's own."""
    own, model.generation_config = model.generation_config, settings
    try:
        made: torch.Tensor = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=True
        )
    finally:
        model.generation_config = own
    return made


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token at which the model stops."""
    config = model.generation_config
    own = config.eos_token_id if config is not None else None
    found = own if isinstance(own, list) else [own]
    return sorted({token for token in [*found, tokenizer.eos_token_id] if token is not None})


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first end token, with it; what follows is padding."""
    stop = next((number for number, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: stop + 1]
