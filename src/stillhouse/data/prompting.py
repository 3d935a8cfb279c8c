"""What a model is asked -> token ids."""

import re
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..errors import RecipeError
from .encode import without_control
from .formats import Message

Prompt = str | list[Message]
"""A text to go on from, or a conversation to answer."""


def prompt_ids(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, control: re.Pattern[str], folder: Path | str
) -> list[int]:
    """A text as it is; a conversation by the chat template, or as plain text for a model that has none.

    Args:
        control: of `control_pieces`: what would be read as control tokens, and become plain text.
        folder: of the model, for the message.
    Raises: RecipeError if the chat template refuses the conversation.
    """
    if isinstance(prompt, str):
        return list(tokenizer(without_control(prompt, control), verbose=False)["input_ids"])
    turns = [{"role": turn["role"], "content": without_control(turn["content"], control)} for turn in prompt]
    if not tokenizer.chat_template:
        text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
        return list(tokenizer(text, verbose=False)["input_ids"])
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the tokenizer's; it raises what it likes
        raise RecipeError(
            f"{folder}: its chat template refuses a prompt ({error}); use another model."
        ) from error
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
