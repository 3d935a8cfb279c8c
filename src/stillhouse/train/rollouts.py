"""The student writes its own training rows.

Which batches it writes is a function of (seed, step, micro-batch), the same on all ranks; what it writes also of the
rank.  Rows are written before the step's positions are counted, so that they are counted as they are.

An adaptive share follows the objective's value on the evaluation rows: what it has come to is in each checkpoint.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.encode import IGNORED, Example, remade
from ..files import read_json, read_jsonl, write_json, write_jsonl
from ..losses import log_softmax
from ..losses.fused import chunks
from ..models.generate import write_on
from ..recipe import Adaptive, Rollouts
from ..seeds import draw_seed
from ..tasks import Batch, Scores, Task, Written, unwrap
from ..teachers import Dense

BUFFER = "rollouts.jsonl"
SHARE = "share.json"


class AdaptiveShare:
    """Grows by a step at each look that finds the validation loss no lower than the look before did.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.2: its φ.
    """

    def __init__(self, wanted: Adaptive) -> None:
        self.wanted = wanted
        self.state: dict[str, float | None] = {"share": wanted.start, "loss": None}
        """All of it; JSON keeps each bit of a float."""

    @property
    def share(self) -> float:
        """What it has come to."""
        return float(self.state["share"] or 0.0)

    def look(self, loss: float) -> None:
        """What the objective comes to on the validation rows now."""
        before = self.state["loss"]
        grows = before is not None and loss >= before + self.wanted.tolerance
        share = min(self.share + self.wanted.step, self.wanted.most) if grows else self.share
        self.state = {"share": share, "loss": loss}


class Writing:
    """Decides, writes, and remembers."""

    def __init__(
        self,
        settings: Rollouts,
        task: Task,
        seed: int,
        collate: Callable[[list[Example]], Batch] | None = None,
    ) -> None:
        """Args: collate: how rows become a batch; None: each has a sequence of its own."""
        self.settings, self.task, self.seed = settings, task, seed
        self._collate = collate or task.collate
        self._buffer: deque[Example] = deque(maxlen=settings.buffer)
        share = settings.share
        self.adaptive = AdaptiveShare(share) if isinstance(share, Adaptive) else None
        """A share that grows when the student stops getting better."""

    def share(self, progress: float) -> float:
        """Of the batches that the student writes now."""
        if self.adaptive is not None:
            return self.adaptive.share
        share = self.settings.share
        assert not isinstance(share, Adaptive)
        return share if isinstance(share, float) else share.at(progress)

    def some(
        self, batches: list[Batch], model: nn.Module, step: int, progress: float, rank: int
    ) -> list[Batch]:
        """The step's micro-batches, some of them in the student's own words."""
        found = []
        for number, batch in enumerate(batches):
            draw = np.random.default_rng(draw_seed(self.seed, "rollouts", step, number))
            if draw.random() >= self.share(progress):
                found.append(batch)
                continue
            replayed = draw.random() < self.settings.replay
            own = np.random.default_rng(draw_seed(self.seed, "rollouts", step, number, rank))
            found.append(
                self._again(batch, own) if replayed and self._buffer else self._new(batch, model, own)
            )
        return found

    def save(self, folder: Path) -> None:
        """What was written so far, for a checkpoint."""
        if self.settings.replay:
            write_jsonl(folder / BUFFER, [vars(example) for example in self._buffer])
        if self.adaptive is not None:
            write_json(folder / SHARE, self.adaptive.state)

    def restore(self, folder: Path) -> None:
        """What `save` wrote."""
        if self.settings.replay and (folder / BUFFER).exists():
            self._buffer = deque(
                (Example(**row) for row in read_jsonl(folder / BUFFER)), self.settings.buffer
            )
        if self.adaptive is not None:
            self.adaptive.state = read_json(folder / SHARE)

    def _new(self, batch: Batch, model: nn.Module, draw: np.random.Generator) -> Batch:
        asked = self.task.prompts(batch, self.settings.prompt_tokens)
        written = write_on(
            unwrap(model),
            self.task.tokenizer,
            [one.input_ids for one in asked],
            vocabulary=self.task.outcomes,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=int(draw.integers(2**31)),
        )
        examples = [_answered(one, answer) for one, answer in zip(asked, written, strict=True) if answer]
        self._buffer.extend(examples if self.settings.replay else [])
        return self._collated(examples, batch) if examples else batch

    def _again(self, batch: Batch, draw: np.random.Generator) -> Batch:
        places = draw.choice(
            len(self._buffer), size=min(len(batch["keys"]), len(self._buffer)), replace=False
        )
        return self._collated([self._buffer[int(place)] for place in places], batch)

    def _collated(self, examples: Sequence[Example], like: Batch) -> Batch:
        place = like["labels"].device
        made = self._collate(list(examples))
        moved = {
            name: value.to(place) if isinstance(value, Tensor) else value for name, value in made.items()
        }
        return {**moved, "written": True}


def _answered(asked: Example, answer: list[int]) -> Example:
    prompt = asked.input_ids
    return remade(asked, prompt + answer, [IGNORED] * len(prompt) + answer, "rollout")


@torch.no_grad()
def judged(scores: Scores, teacher: Dense, tokens: Tensor) -> Written:
    """What the teacher makes of the `tokens` [N] that the student wrote."""
    found = []
    for at in chunks(len(tokens), scores.head.outcomes(scores.hidden), scores.hidden.device):
        own, whose = (
            log_softmax(logits).gather(-1, tokens[at].unsqueeze(-1)).squeeze(-1)
            for logits in (scores.head.logits(scores.hidden[at]), teacher.logits(at))
        )
        found.append(whose - own)
    reward = torch.cat(found) if found else scores.hidden.new_zeros(0)
    later = torch.zeros_like(reward)
    for row in set(scores.rows.tolist()):
        mine = scores.rows == row
        sums = reward[mine].flip(0).cumsum(0).flip(0)
        later[mine] = sums / torch.arange(len(sums), 0, -1, device=sums.device)
    return Written(tokens, reward, later)
