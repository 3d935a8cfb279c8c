"""Who writes texts, and texts on disk: asked for once, shard by shard, so that a second run asks only for the rest.

A writer is anything with an `identity` and `write(prompts, sampling, seeds)`, which gives (number of the prompt, text) as they
are finished; None for an answer that was cut off at its length.  A local model is one, and so may be an API.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data.encode import control_pieces
from ..data.prompting import Prompt, prompt_ids
from ..files import hash_json, sweep_parts, write_jsonl
from ..models.continuous import Sampling, write_all
from ..models.generate import end_tokens
from ..models.load import load_model, load_tokenizer
from ..models.machine import device
from ..progress import Watch
from ..seeds import draw_seed

SHARD = 64
"""Answers in a file: what a kill can lose."""


class Writer(Protocol):
    """Prompts -> texts."""

    identity: str
    """Which model, in which revision and arithmetic: another one writes other texts."""

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, str | None]]:
        """(number of the prompt, its text, or None if it was cut off), each once, in any order."""
        ...


class LocalWriter:
    """A causal language model on this machine; it is loaded when something is asked for that is not there."""

    def __init__(self, folder: Path, identity: str, dtype: str, batch_size: int) -> None:
        self.folder, self.dtype, self.batch_size = folder, dtype, batch_size
        self.tokenizer = load_tokenizer(folder)
        self.control = control_pieces(self.tokenizer)
        self.identity = f"{identity} {dtype}"
        self._model: Any = None

    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, str | None]]:
        """Greedy, or drawn by each prompt's own seed."""
        if self._model is None:
            self._model = load_model(self.folder, "AutoModelForCausalLM", getattr(torch, self.dtype)).to(
                device()
            )
        ends = end_tokens(self._model, self.tokenizer)
        written = write_all(
            self._model,
            [self.ids(prompt) for prompt in prompts],
            sampling,
            ends=ends,
            vocabulary=int(max(self.tokenizer.get_vocab().values())) + 1,
            seeds=seeds,
            slots=self.batch_size,
        )
        for number, tokens in written:
            cut = not tokens or tokens[-1] not in ends
            yield number, None if cut else str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def ids(self, prompt: Prompt) -> list[int]:
        """See `prompt_ids`."""
        return prompt_ids(prompt, self.tokenizer, self.control, self.folder)


def write_kept(
    writer: Writer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    folder: Path,
    watch: Watch,
    what: str,
) -> list[str | None]:
    """The texts in the order of `prompts`; what lies in `folder` already is not asked for again.

    Equal prompts get different texts, unless sampling is greedy.
    """
    keys = _keys(writer, prompts, sampling, seed)
    found = _there(folder)
    missing = sorted({key: number for number, key in enumerate(keys) if key not in found}.values())
    if missing:
        if len(missing) < len(prompts):
            watch.note(f"  {what}: {len(prompts) - len(missing):,} are there, {len(missing):,} are asked for")
        texts = writer.write(
            [prompts[number] for number in missing],
            sampling,
            [draw_seed(seed, keys[number]) for number in missing],
        )
        shard: list[dict[str, Any]] = []
        try:
            for done, (place, text) in enumerate(texts, 1):
                key = keys[missing[place]]
                found[key] = text
                shard.append({"key": key, "text": text, "sum": _sum(key, text)})
                watch.step(what, done, len(missing))
                if len(shard) >= SHARD:
                    _keep(folder, shard)
                    shard = []
        finally:
            if shard:
                _keep(folder, shard)
    return [found[key] for key in keys]


def _keys(writer: Writer, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> list[str]:
    """What each text is found by: all that decides it, and how often the same was asked before."""
    settings = [writer.identity, vars(sampling), seed if sampling.temperature else None]
    times: dict[str, int] = {}
    keys = []
    for prompt in prompts:
        key = hash_json([settings, prompt])
        count = times[key] = times.get(key, -1) + 1
        keys.append(hash_json([key, count if sampling.temperature else 0])[:32])
    return keys


def _there(folder: Path) -> dict[str, str | None]:
    """key -> text of every line in `folder` that is what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep_parts(folder)
    found: dict[str, str | None] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                if row["sum"] == _sum(row["key"], row["text"]):
                    found[row["key"]] = row["text"]
            except (ValueError, KeyError, TypeError):
                continue  # a damaged line is asked for again
    return found


def _keep(folder: Path, shard: list[dict[str, Any]]) -> None:
    number = 1 + max((int(path.stem) for path in folder.glob("*.jsonl")), default=-1)
    write_jsonl(folder / f"{number:05d}.jsonl", shard)


def _sum(key: str, text: str | None) -> str:
    return hash_json([key, text])[:16]
