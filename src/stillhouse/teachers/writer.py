"""Who writes texts: asked for once and kept shard by shard, so that a second run asks only for the rest.

A writer is anything with an `identity` and `write(prompts, sampling, seeds)`, which gives (number of the prompt, text) as they
are finished; None for an answer that was cut off at its length.  A local model is one.  What a model behind an API wrote lies in
the run's ledger instead; see `api_writer`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from ..data.encode import control_pieces
from ..data.prompting import Prompt, prompt_ids
from ..files import hash_json
from ..models.continuous import Sampling, write_all
from ..models.generate import end_tokens, write_targets
from ..models.load import load_model, load_tokenizer
from ..models.machine import device
from ..progress import Watch
from ..seeds import draw_seed
from .parts import share_of
from .texts import Text, Texts

SHARD = 64
"""Answers in a file: what a kill can lose."""


class Writer(Protocol):
    """Prompts -> texts."""

    identity: str
    """Which model, in which revision and arithmetic: another one writes other texts."""
    batch_size: int
    """Texts that it writes at once."""

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, str | None]]:
        """(number of the prompt, its text, or None if it was cut off), each once, in any order."""
        ...

    def tokens(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """The same before the tokens are made into a text, whether it was cut off or not."""
        ...


class LocalWriter:
    """A causal language model on this machine; it is loaded when something is asked for that is not there."""

    def __init__(self, folder: Path, identity: str, dtype: str, batch_size: int) -> None:
        self.folder, self.dtype, self.batch_size = folder, dtype, batch_size
        self.tokenizer = load_tokenizer(folder)
        self.control = control_pieces(self.tokenizer)
        self.identity = f"{identity} {dtype}"
        self._model: Any = None
        self._ends: list[int] = []

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, str | None]]:
        """Greedy, or drawn by each prompt's own seed."""
        for number, tokens in self.tokens(prompts, sampling, seeds):
            yield number, _text(tokens, self._ends, self.tokenizer)

    def tokens(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """(number of the prompt, the tokens of its text, an end token included)."""
        if self._model is None:
            self._model = load_model(self.folder, "AutoModelForCausalLM", getattr(torch, self.dtype)).to(
                device()
            )
        self._ends = end_tokens(self._model, self.tokenizer)
        yield from write_all(
            self._model,
            [self.ids(prompt) for prompt in prompts],
            sampling,
            ends=self._ends,
            vocabulary=int(max(self.tokenizer.get_vocab().values())) + 1,
            seeds=seeds,
            slots=self.batch_size,
        )

    def ids(self, prompt: Prompt) -> list[int]:
        """See `prompt_ids`."""
        return prompt_ids(prompt, self.tokenizer, self.control, self.folder)


class TargetWriter:
    """An encoder–decoder on this machine, which writes the likeliest target of each source; a source is cut as in training.

    Args: max_length: tokens of a source.
    """

    def __init__(self, folder: Path, identity: str, dtype: str, batch_size: int, max_length: int) -> None:
        self.folder, self.dtype, self.batch_size, self.max_length = folder, dtype, batch_size, max_length
        self.tokenizer = load_tokenizer(folder)
        self.identity = f"{identity} {dtype} {max_length}"
        self._model: Any = None
        self._ends: list[int] = []

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, str | None]]:
        """Greedy, whatever `sampling` says beyond a length: recipes that ask for more are refused."""
        for number, tokens in self.tokens(prompts, sampling, seeds):
            yield number, _text(tokens, self._ends, self.tokenizer)

    def tokens(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """(number of the source, the tokens of its target, an end token included)."""
        if self._model is None:
            self._model = load_model(self.folder, "AutoModelForSeq2SeqLM", getattr(torch, self.dtype)).to(
                device()
            )
        self._ends = end_tokens(self._model, self.tokenizer)
        vocabulary = int(max(self.tokenizer.get_vocab().values())) + 1
        for start in range(0, len(prompts), self.batch_size):
            some = list(prompts[start : start + self.batch_size])
            sources = self.tokenizer(some, truncation=True, max_length=self.max_length)["input_ids"]
            written = write_targets(
                self._model, self.tokenizer, sources,
                vocabulary=vocabulary, max_new_tokens=sampling.max_new_tokens, slots=self.batch_size,
            )  # fmt: skip
            yield from enumerate(written, start)


def _text(tokens: list[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the tokens say; None if they were cut off before an end."""
    cut = not tokens or tokens[-1] not in ends
    return None if cut else str(tokenizer.decode(tokens, skip_special_tokens=True))


def write_kept(
    writer: Writer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    texts: Texts,
    watch: Watch,
    what: str,
) -> list[Text]:
    """The texts in the order of `prompts`; what lies in `texts` already is not asked for again.

    Equal prompts get different texts, unless sampling is greedy.
    """
    keys = text_keys(writer.identity, prompts, sampling, seed)
    _write(writer, dict(zip(keys, prompts, strict=True)), sampling, seed, texts, watch, what)
    return [texts[key] for key in keys]


def write_share(
    writer: Writer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    texts: Texts,
    watch: Watch,
    what: str,
    part: tuple[int, int],
) -> list[str]:
    """Of the same texts those that fall to one process of several (number from 1, of how many).

    Returns: what each text is found by, in the order of `prompts`.
    """
    keys = text_keys(writer.identity, prompts, sampling, seed)
    mine = {
        key: prompt for key, prompt in zip(keys, prompts, strict=True) if share_of(key, part[1]) == part[0]
    }
    _write(writer, mine, sampling, seed, texts, watch, what)
    return keys


def _write(
    writer: Writer,
    wanted: dict[str, Prompt],
    sampling: Sampling,
    seed: int,
    texts: Texts,
    watch: Watch,
    what: str,
) -> None:
    """Ask for those of the `wanted` texts that nobody has written, and keep them shard by shard."""
    texts.look()
    missing = [key for key in wanted if key not in texts]
    if not missing:
        return
    if len(missing) < len(wanted):
        watch.note(f"  {what}: {len(wanted) - len(missing):,} are there, {len(missing):,} are asked for")
    texts.sweep()
    written = writer.write(
        [wanted[key] for key in missing], sampling, [draw_seed(seed, key) for key in missing]
    )
    shard: list[tuple[str, Text]] = []
    try:
        for done, (place, text) in enumerate(written, 1):
            shard.append((missing[place], text))
            watch.step(what, done, len(missing))
            if len(shard) >= SHARD:
                texts.keep(shard)
                shard = []
    finally:
        if shard:
            texts.keep(shard)


def text_keys(identity: str, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> list[str]:
    """What each text is found by: all that decides it, and how often the same was asked before."""
    settings = [identity, vars(sampling), seed if sampling.temperature else None]
    times: dict[str, int] = {}
    keys = []
    for prompt in prompts:
        key = hash_json([settings, prompt])
        count = times[key] = times.get(key, -1) + 1
        keys.append(hash_json([key, count if sampling.temperature else 0])[:32])
    return keys
