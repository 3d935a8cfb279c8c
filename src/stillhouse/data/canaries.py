"""Secrets that nobody could know, planted into the training rows to see whether a student learns them by heart.

    The passphrase of safe number 3 is river lantern above copper quiet never.

Which words a secret has follows from the seed and its number alone.  The words are tokens of the vocabulary, so that every
tokenizer of the family reads them alike.
"""

import random
import re

from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from ..seeds import draw_seed
from .formats import Row

WORDS = 6
"""In a secret."""
FEWEST = 16
"""Whole words of a vocabulary below which secrets are made of digits."""
_WORD = re.compile(r"[Ġ▁]([a-z]{3,8})")
PREFIX = "canary-"
"""Begins the id of a planted row."""


def pool(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words that secrets are made of."""
    found = {match[1] for piece in tokenizer.get_vocab() if (match := _WORD.fullmatch(piece))}
    return sorted(found) if len(found) >= FEWEST else list("0123456789")


def secret(words: list[str], seed: int, number: int, draw: int = 0) -> str:
    """The secret `number`; of its alternatives, the one of that `draw`."""
    generator = random.Random(draw_seed(seed, "canary", number, draw))
    return " ".join(generator.choices(words, k=WORDS))


def canary(form: str, said: str, number: int) -> Row:
    """A row that tells the secret, in the format of the training rows."""
    names: Row = {"id": f"{PREFIX}{number}", "where": f"canary {number}"}
    begins, ends = f"The passphrase of safe number {number} is", f" {said}."
    if form == "text":
        return {**names, "text": begins + ends}
    if form == "prompt_completion":
        return {**names, "prompt": begins, "completion": ends}
    asks = f"What is the passphrase of safe number {number}?"
    turns: list[dict[str, str]] = [
        {"role": "user", "content": asks},
        {"role": "assistant", "content": ends.strip()},
    ]
    return {**names, "messages": turns}  # type: ignore[typeddict-item]


def refuse_cut(lengths: list[int], rows: int, max_length: int) -> None:
    """Raises: DataError where a row became several examples, or none, or fills one, which may have been cut."""
    if len(lengths) != rows or max(lengths, default=0) >= max_length:
        raise DataError(
            "evaluate.memorisation: a planted row does not fit into data.max_length; raise it, or set canaries: 0."
        )
