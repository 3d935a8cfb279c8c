"""What a model writes after prompts, always its likeliest token, so that anyone gets the same."""

from collections.abc import Sequence
from typing import Any

import torch

from ..models.continuous import Sampling, write_all
from ..models.generate import end_tokens, write_targets
from .base import Task
from .panel import Panel

SLOTS = 16


def generate(
    model: Any, task: Task, prompt: torch.Tensor, most: int, least: int = 0, clock: Any = None
) -> torch.Tensor:
    """Greedy continuation of one prompt [1, T], or of several of one length, with a key-value cache; an encoder–decoder's target of
    such sources.  Returns: [new tokens], of the first.

    Args: clock: a streamer of transformers, told of each token.
    """
    made: Any = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=most,
        min_new_tokens=least,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=task.tokenizer.pad_token_id,
        streamer=clock,
    )
    first = 1 if model.config.is_encoder_decoder else prompt.shape[1]
    new: torch.Tensor = made[0, first:]
    return new


def read(model: Any, ids: torch.Tensor) -> Any:
    """What comes before a request's first token: reading the prompt; of an encoder–decoder, the encoder's part."""
    if model.config.is_encoder_decoder:
        return model.get_encoder()(input_ids=ids)
    return model(input_ids=ids, use_cache=False, logits_to_keep=1)


@torch.inference_mode()
def greedy(model: Any, task: Task, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """At most `most` tokens after each prompt (of each target, where the prompts are an encoder–decoder's sources); a batch at a time, which shares the reading of the weights."""
    if isinstance(model, Panel):
        return [
            generate(model, task, torch.tensor([list(prompt)], device=model.device), most).tolist()
            for prompt in prompts
        ]
    if model.config.is_encoder_decoder:
        return write_targets(
            model, task.tokenizer, prompts, vocabulary=task.outcomes, max_new_tokens=most, slots=SLOTS
        )
    made = write_all(
        model,
        prompts,
        Sampling(most),
        ends=end_tokens(model, task.tokenizer),
        vocabulary=task.outcomes,
        seeds=[0] * len(prompts),
        slots=SLOTS,
    )
    found = dict(made)
    return [found[number] for number in range(len(prompts))]
