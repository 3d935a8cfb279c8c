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
