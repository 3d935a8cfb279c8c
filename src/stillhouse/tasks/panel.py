"""A panel of teachers as one model: a folder that names its members, and what they say pooled into one distribution."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DataError
from ..files import read_json, read_jsonl, write_json
from ..losses import Head, log_softmax
from ..losses.pooling import PooledHead, pooled
from .base import Batch, Scores, Task, of_no_position
from .context import in_context, prefixes, prompt_key
from .told import Told, is_told
from .zero_shot import ZERO_SHOT, is_zero_shot

PANEL = "panel.json"


class Panel(nn.Module):
    """Members of one task and one vocabulary: models, and those that were asked (`Told`, `ZeroShot`) in a model's place.

    Args:
        pool: of `losses.pooling`.
        weights: [M]; equal ones if None.
        table: [M, C], for the pool `table`.
        routes: key of an example -> number of the member that teaches it.
        context: a prompt that they see before every row, and the student does not; a panel of one may have one too.
        contexts: key of an example, or `prompt_key` of what it begins with -> a prompt of its own.
    """

    def __init__(
        self,
        members: list[PreTrainedModel],
        pool: str = "mean",
        weights: list[float] | None = None,
        table: list[list[float]] | None = None,
        routes: dict[str, int] | None = None,
        context: str | None = None,
        contexts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.pool = pool
        self.weights = torch.tensor(weights or [1.0 / len(members)] * len(members))
        self.table = None if table is None else torch.tensor(table)
        self.routes = routes or {}
        self.context, self.contexts = context, contexts or {}
        self.tokenizer: PreTrainedTokenizerBase | None = None
        """What reads a context before the prompts that it writes after; none is read without one."""

    @property
    def module(self) -> nn.Module:
        """The first member that is a model: what stands for the panel where one is asked for."""
        return next((member for member in self.members if not isinstance(member, Told)), self.members[0])

    @property
    def is_here(self) -> bool:
        """Whether all of it runs on this machine, so that its size and speed are its own."""
        return not any(isinstance(member, Told) for member in self.members)

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return next(self.parameters()).device

    @property
    def config(self) -> Any:
        """Of the first member."""
        return self.module.config

    def scores(self, task: Task, batch: Batch) -> Scores:
        """All members' hidden states side by side, with the weights of each position, under one head."""
        contexts = self._contexts(task, batch)
        read = in_context(task, batch, contexts) if contexts else batch
        each = [task.scores(member, read) for member in self.members]
        weights = self._weights(batch, each[0])
        head = self._head([one.head for one in each])
        hidden = torch.cat([*(one.hidden for one in each), weights.to(each[0].hidden)], -1)
        return Scores(hidden, head, each[0].labels, each[0].rows)

    def silent(self, task: Task) -> Scores:
        """See `Task.silent`."""
        return of_no_position(self._head([task.silent(member).head for member in self.members]))

    def _head(self, heads: Sequence[Head]) -> PooledHead:
        members = tuple((head, head.width) for head in heads)
        return PooledHead(None, members=members, pool=self.pool, table=self.table)

    def _contexts(self, task: Task, batch: Batch) -> list[str]:
        """One a row, if there are any.  Raises: DataError for a row that has none of several."""
        if self.context is not None:
            return [self.context] * len(batch["labels"])
        if not self.contexts:
            return []
        found = []
        for key, asked in zip(batch["keys"], task.prompts(batch, 1), strict=True):
            own = self.contexts.get(key) or self.contexts.get(
                prompt_key(asked.input_ids)
            )  # what the student wrote has a key of its own
            if own is None:
                raise DataError(
                    f"teacher.context: the context of row {key} is not there; delete the run's prepare folder and run again."
                )
            found.append(own)
        return found

    def _weights(self, batch: Batch, one: Scores) -> Tensor:
        """[N, M], adding up to 1: all on one member where the row has a route.  What a member has no answer to is left to the
        others."""
        if not self.routes and self.is_here:
            return self.weights.to(one.rows.device).expand(len(one.rows), -1)
        rows = torch.stack([self._shares(key) for key in batch["keys"]])
        return rows.to(one.rows.device)[one.rows]

    def _shares(self, key: str) -> Tensor:
        """[M] of one row."""
        there = torch.tensor([not isinstance(one, Told) or key in one for one in self.members])
        if key in self.routes and there[self.routes[key]]:
            return torch.eye(len(self.members))[self.routes[key]]
        shares = self.weights * there
        return shares / shares.sum() if there.any() else self.weights

    def forward(self, **inputs: Any) -> Any:
        """What it costs to ask them all; the answer of the last."""
        return [member(**inputs) for member in self.members][-1]

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, max_new_tokens: int, min_new_tokens: int = 0, streamer: Any = None, **_: Any
    ) -> Tensor:
        """Greedy continuation of one prompt [1, T] by the pooled distribution, after the context if there is one; each member
        reads with its own key-value cache.  Returns: [1, T + new].

        A streamer hears of the prompt and of each token, as it does from `generate` of transformers.
        """
        if streamer is not None:
            streamer.put(prompt)
        end = self.config.get_text_config().eos_token_id
        ends = end if isinstance(end, list) else [end]
        weights = self.weights.to(prompt.device).unsqueeze(0)
        pool = "mean" if self.pool == "table" else self.pool
        whole, written = self._in_context(prompt), prompt
        caches: list[Any] = [None] * len(self.members)
        for number in range(max_new_tokens):
            said = []
            for at, member in enumerate(self.members):
                ids = whole if caches[at] is None else whole[:, -1:]
                output = member(input_ids=ids, past_key_values=caches[at], use_cache=True)
                caches[at] = output.get("past_key_values")  # a model without one reads everything each time
                said.append(log_softmax(output.logits[:, -1]))
            best = pooled(said, weights, pool).argmax(-1, keepdim=True)
            whole, written = torch.cat([whole, best], -1), torch.cat([written, best], -1)
            if streamer is not None:
                streamer.put(best.flatten().cpu())
            if int(best) in ends and number + 1 >= min_new_tokens:
                break
        return written

    def _in_context(self, prompt: Tensor) -> Tensor:
        """[1, T] after the context, which takes the place of the system's turn that the template began it with, as it does
        where the teacher labels.  A prompt that is no row's, as one that only a clock looks at, has none of several contexts."""
        context = self.context or (
            self.contexts.get(prompt_key(prompt[0].tolist())) if self.contexts else None
        )
        if context is None or self.tokenizer is None:
            return prompt
        said, instead_of = prefixes(self.tokenizer, context)
        skip = len(instead_of)
        begins = skip < prompt.shape[1] and prompt[0, :skip].tolist() == instead_of
        before = torch.tensor([said], dtype=torch.long, device=prompt.device)
        return torch.cat([before, prompt[:, skip:] if begins else prompt], -1)


def write_panel(folder: Path, members: list[Path], **settings: Any) -> None:
    """Name the members' folders (absolute ones, or such as lie in `folder`) and how they are pooled; see `Panel`."""
    write_json(folder / PANEL, {"members": [str(member) for member in members], **settings})


def is_panel(folder: Path) -> bool:
    """Whether `folder` names a panel instead of holding a model."""
    return (folder / PANEL).is_file()


def members_of(folder: Path) -> list[Path]:
    """The folders of the models in it: the panel's members, the one behind a stand-in, or the one model itself."""
    if is_zero_shot(folder):
        return [Path(read_json(folder / ZERO_SHOT)["model"])]
    if is_panel(folder):
        named = [folder / member for member in read_json(folder / PANEL)["members"]]
        return [model for member in named for model in members_of(member)]
    return [] if is_told(folder) else [folder]


def load_panel(task: Task, folder: Path, dtype: torch.dtype) -> Any:
    """The panel that `write_panel` wrote, ready for `task`."""
    kept = read_json(folder / PANEL)
    members = [task.load(folder / member, dtype) for member in kept.pop("members")]
    if kept.get("contexts") is not None:
        kept["contexts"] = _by_key(read_jsonl(folder / kept["contexts"]))
    panel = Panel(members, **kept).eval()
    panel.tokenizer = task.tokenizer
    return panel


def _by_key(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """{key, prompt, context} of each example -> its context by either; of two with one prompt the first."""
    by_prompt = {row["prompt"]: row["context"] for row in reversed(rows)}
    return by_prompt | {row["key"]: row["context"] for row in rows}
