"""Class probabilities from label names: a causal language model scores each name as the answer; no prose is parsed.

p(label | text) ∝ p(the tokens of the label's name | the prompt with the text) ÷ prior(label), and that is what a student can take
as soft targets.  The name is the answer to a chat turn, or goes on a plain text; examples are earlier turns, or stand before it.
Sources: Brown et al. 2020 (scoring options), arXiv:2005.14165, section 2.4; Zhao et al. 2021 (a prior from texts without content),
arXiv:2102.09690; Zhou et al. 2023 (batch calibration: a prior from the texts themselves), arXiv:2309.17249; Sorensen et al. 2022
(the prompt with the most mutual information), arXiv:2203.11364.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encode import control_pieces
from ..data.formats import Message
from ..data.prompting import Prompt, prompt_ids
from ..data.templates import fill, template
from ..errors import DataError, RecipeError
from ..files import read_json, read_jsonl, write_json
from ..losses import Head
from ..models.load import load_model, load_tokenizer
from .base import Batch, Scores, Task

ZERO_SHOT = "zero_shot.json"
CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing: what the model answers to them is its bias for a name (Zhao et al. 2021, section 4)."""
EPSILON = torch.finfo(torch.float64).eps
Text = str | tuple[str, str]
"""What is to be labelled: a text, or a pair of texts."""


class ZeroShot(nn.Module):
    """A language model in a classifier's place."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        *,
        examples: Sequence[tuple[Text, str]] = (),
        prompt: str | None = None,
        form: str = "chat",
        prior: Mapping[str, Sequence[float]] | None = None,
        texts: Mapping[str, Text] | None = None,
    ) -> None:
        """Args:
            labels: the names that are scored, in the order of the classes; words that describe a text.
            examples: (text, label) shown before each text.
            prompt: what is asked, with {text}, {pair} and {labels} to be filled in; the package's own for its form if not given.
            form: "chat" (a user's turn, which the name answers) or "plain" (a text that the name goes on, after a space).
            prior: of `priors`: what the labels' probabilities are divided by; nothing for a kind of text that it lacks.
            texts: key of an example -> its text; what `scores` looks up.
        Raises: RecipeError if two labels are the same tokens, or an example's label is not among them.
        """
        super().__init__()
        self.module, self.tokenizer, self.labels = model.eval(), tokenizer, list(labels)
        self.prompt, self.form, self.texts = prompt, form, texts or {}
        self.control = control_pieces(tokenizer)
        self.names = [_name_ids(tokenizer, name, form) for name in labels]
        if len({tuple(name) for name in self.names}) < len(self.names) or not all(self.names):
            raise RecipeError(
                f"labels: {', '.join(labels)} are not all different to the tokenizer; use other names."
            )
        if unknown := [label for _, label in examples if label not in self.labels]:
            raise RecipeError(f"examples: {unknown[0]!r} is none of the labels {', '.join(labels)}; mend it.")
        self._longer = _going_on(self.names)
        self.shown = [(self._ask(text), label) for text, label in examples]
        longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
        self.room = None if longest is None else longest - max(map(len, self.names))
        self.prior = {kind: torch.tensor(row, dtype=torch.float64) for kind, row in (prior or {}).items()}

    @property
    def config(self) -> Any:
        """Of the language model."""
        return self.module.config

    def scores(self, task: Task, batch: Batch) -> Scores:
        """[B, C] log-probabilities as logits, of the texts that the batch's keys stand for; in whatever tokens the student
        reads them, the teacher reads them in its own."""
        unknown = [key for key in batch["keys"] if key not in self.texts]
        if unknown:
            raise DataError(
                f"teacher.zero_shot: the text of row {unknown[0]} is not there; delete the run's prepare folder and run again."
            )
        log_p = self.log_probs([self.texts[key] for key in batch["keys"]], len(batch["keys"]))
        rows = torch.arange(len(log_p), device=self.module.device)
        head = Head(None, vocabulary=len(self.labels))
        return Scores(log_p.float().to(self.module.device), head, batch["labels"], rows)

    @torch.inference_mode()
    def log_probs(self, texts: Sequence[Text], batch_size: int = 16) -> Tensor:
        """[texts, C] log-probabilities of the labels, summing to 1 over them; for a T other than 1 divide, and normalise again."""
        scores = self._raw(texts, batch_size)
        if self.prior:
            none = torch.zeros(len(self.labels), dtype=torch.float64)
            scores -= torch.stack([self.prior.get(kind_of(text), none) for text in texts])
        return scores.log_softmax(-1)

    def _ask(self, text: Text) -> str:
        one, pair = (text, "") if isinstance(text, str) else text
        own = {"text": "zero_shot", "pair": "zero_shot_pair"}[kind_of(text)]
        prompt = self.prompt or template(own if self.form == "chat" else f"{own}_plain", None)
        return fill(prompt, text=one, pair=pair, labels=", ".join(self.labels))

    def _prompt(self, text: Text) -> Prompt:
        if self.form == "plain":
            return "\n\n".join([*(f"{asked} {label}" for asked, label in self.shown), self._ask(text)])
        turns: list[Message] = []
        for asked, label in self.shown:
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": label}]
        return [*turns, {"role": "user", "content": self._ask(text)}]

    def ids(self, text: Text) -> list[int]:
        """The whole prompt; a text that is too long for the model loses its end.

        Raises: RecipeError if not even the rest of the prompt has room.
        """
        while True:
            ids = prompt_ids(self._prompt(text), self.tokenizer, self.control, self.config.name_or_path)
            if self.room is None or len(ids) <= self.room:
                return ids
            parts = [text] if isinstance(text, str) else list(text)
            length = max(map(len, parts))
            if length == 0:
                raise RecipeError(
                    f"teacher.zero_shot: the prompt takes {len(ids):,} tokens without a text, and the model reads {self.room:,}; "
                    "lower examples, or shorten the prompt."
                )
            over = max(1, int(length * min(1.0, (len(ids) - self.room) / len(ids))))
            cut = [part[: length - over] for part in parts]
            text = cut[0] if isinstance(text, str) else (cut[0], cut[1])

    def _raw(self, texts: Sequence[Text], batch_size: int) -> Tensor:
        """[texts, C] log-probabilities of the names among all that the model could say, in float64."""
        prompts = [self.ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda number: -len(prompts[number]))
        scores = torch.zeros((len(texts), len(self.labels)), dtype=torch.float64)
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            scores[some] = self._scores([prompts[number] for number in some])
        return scores

    def _scores(self, prompts: Sequence[list[int]]) -> Tensor:
        """[B, C] log-probability of each name after each prompt, all of its tokens counted; of a name that other names go on
        from ("good", "good film"), that it is said and none of those."""
        if all(len(name) == 1 for name in self.names):
            logits = self._logits(prompts, 1)[:, -1]
            return logits.log_softmax(-1)[:, [name[0] for name in self.names]]
        steps = []
        for name in self.names:
            logits = self._logits([[*prompt, *name] for prompt in prompts], len(name) + 1)[:, :-1]
            tokens = torch.tensor(name).expand(len(prompts), -1)
            steps.append(logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
        columns = [step.sum(-1) for step in steps]
        for short, longer in enumerate(self._longer):
            if longer:  # its rest, in its own pass: between two passes is noise, and a share of more than 1
                rest = [steps[number][:, len(self.names[short]) :].sum(-1) for number in longer]
                share = torch.stack(rest, -1).logsumexp(-1)
                columns[short] = columns[short] + (-share.exp()).clamp_min(EPSILON - 1).log1p()
        return torch.stack(columns, -1)

    def _logits(self, rows: Sequence[list[int]], last: int) -> Tensor:
        """[B, last, V] at the last positions, in float64; rows are padded on the left."""
        width, place = max(map(len, rows)), self.module.device
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=place)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=place)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        logits: Tensor = self.module(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=last
        ).logits
        return logits.double().cpu()


def _going_on(names: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each name the numbers of those that go on from it, without those that go on from another of these."""
    longer = [
        [number for number, other in enumerate(names) if other != name and other[: len(name)] == name]
        for name in names
    ]
    return [[one for one in some if not any(one in longer[other] for other in some)] for some in longer]


def _name_ids(tokenizer: PreTrainedTokenizerBase, name: str, form: str) -> list[int]:
    """The tokens of a label's name where it stands: alone in a turn, or after a space (some tokenizers put one of their own before
    every text, so the name is read behind a colon)."""
    if form == "chat":
        return list(tokenizer(name, add_special_tokens=False)["input_ids"])
    before, whole = (
        list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (":", f": {name}")
    )
    return whole[len(before) :]


def kind_of(text: Text) -> str:
    """What a text and a pair of texts are called in a prior."""
    return "text" if isinstance(text, str) else "pair"


def priors(texts: Sequence[Text], log_p: Tensor) -> dict[str, list[float]]:
    """Kind of text -> log of the labels' mean probability over those texts: how often a name is said whatever the text says.

    Args: log_p: [texts, C] of a `ZeroShot` that has no prior yet.
    """
    found = {}
    for kind in sorted(set(map(kind_of, texts))):
        rows = [number for number, text in enumerate(texts) if kind_of(text) == kind]
        found[kind] = log_p[rows].exp().mean(0).log().tolist()
    return found


def without_content(kinds: Collection[str]) -> list[Text]:
    """For each kind of text, some that say nothing."""
    alone: list[Text] = list(CONTENT_FREE) if "text" in kinds else []
    return alone + ([(text, text) for text in CONTENT_FREE] if "pair" in kinds else [])


def information(log_p: Tensor) -> float:
    """Nats of mutual information between text and label, H(mean p) − mean H(p): 0 if every text is told the same.

    Args: log_p: [texts, C].
    """
    p = log_p.exp()
    return float((torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(-1).mean()).clamp_min(0.0))


def write_zero_shot(folder: Path, model: Path, texts: Path, **settings: Any) -> None:
    """Name the model's folder (an absolute one), and a file with {key, text, pair?} lines, from the folder that is written;
    the settings are those of `ZeroShot`."""
    write_json(folder / ZERO_SHOT, {"model": str(model), "texts": str(texts), **settings})


def is_zero_shot(folder: Path) -> bool:
    """Whether `folder` names a language model that stands in for a classifier."""
    return (folder / ZERO_SHOT).is_file()


def load_zero_shot(folder: Path, dtype: torch.dtype) -> Any:
    """What `write_zero_shot` wrote, ready for classification."""
    kept = read_json(folder / ZERO_SHOT)
    place, path = Path(kept.pop("model")), folder / kept.pop("texts")
    kept["examples"] = [(text_of(row), row["label"]) for row in kept["examples"]]
    texts = {row["key"]: text_of(row) for row in read_jsonl(path)}
    model = load_model(place, "AutoModelForCausalLM", dtype)
    return ZeroShot(model, load_tokenizer(place), texts=texts, **kept).eval()


def text_of(row: Mapping[str, Any]) -> Text:
    """What is to be labelled of a row."""
    return (str(row["text"]), str(row["pair"])) if "pair" in row else str(row["text"])
