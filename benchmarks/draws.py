"""What soft targets lose that are kept as draws: bytes a token, and the squared error of the gradient against dense targets.

Teacher: SmolLM2-135M-Instruct.  Student: every second layer of it, untrained.  Errors as shares of the dense gradient's square,
on the logits and on the hidden states before the head.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import arguments
from torch import Tensor

from models import book, reviews, smollm2
from stillhouse.data.encode import Example
from stillhouse.losses.sparse import draw_sampled, topk_log_probs
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import Task, make_task
from stillhouse.teachers.cache import Entry, SoftTargetCache
from stillhouse.teachers.codec import encoded
from stillhouse.teachers.targets import Kept, Sampled, TopK


def error(p: Tensor, q: Tensor, head: Tensor, ids: Tensor, shares: Tensor) -> Tensor:
    """[2] squared error of q·Σ shares − shares against q − p, on logits [N, V] and on hidden states [N, H]."""
    off = (shares.sum(-1, keepdim=True) - 1) * q + p
    off.scatter_add_(1, ids, -shares)
    return torch.stack([off.square().sum(), (off @ head).square().sum()])


def bytes_on_disk(examples: list[Example], targets: list[Kept], settings: dict[str, Any]) -> int:
    """Of one shard."""
    with tempfile.TemporaryDirectory() as place:
        cache = SoftTargetCache(Path(place), settings)
        cache.add(
            [
                Entry(one, encoded(kept, [one.counted], settings)[0])
                for one, kept in zip(examples, targets, strict=True)
            ]
        )
        return sum(path.stat().st_size for path in Path(place).glob("*.parquet"))


def some_rows(task: Task, rows: int) -> list[Example]:
    """As many windows of the book, and as many of film reviews."""
    texts = [{"id": "book", "where": "", "text": book()}]
    texts += [
        {"id": f"{n}", "where": "", "text": row["text"]} for n, row in enumerate(reviews("imdb")[:rows])
    ]
    encoded_rows = task.encode(texts)[0]
    examples = [one for one in encoded_rows if one.row == "book"][:rows]
    examples += [one for one in encoded_rows if one.row != "book"][:rows]
    return [replace(one, row=f"{number}") for number, one in enumerate(examples)]


def states(task: Task, folder: Path, examples: list[Example], every: int) -> tuple[list[Tensor], Tensor]:
    """Hidden states of each example, and the head, of a model with every so-manieth layer."""
    model: Any = task.load(folder, torch.float32).eval()
    model.model.layers = torch.nn.ModuleList(list(model.model.layers)[::every])
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = number
    scores = [task.scores(model, task.collate([one])) for one in examples]
    weight = scores[0].head.weight
    assert weight is not None
    return [one.hidden for one in scores], weight[: task.outcomes].detach()


@torch.no_grad()
def main() -> None:
    asked = arguments(__doc__ or "", rows=8, length=256, draws="8,16,30,64", top=64)
    folder = smollm2()
    task = make_task("causal_lm", load_tokenizer(folder), asked.length)
    examples = some_rows(task, asked.rows)
    theirs, head = states(task, folder, examples, 1)
    mine, _ = states(task, folder, examples, 2)
    generator = torch.Generator().manual_seed(0)
    forms = [("samples", int(n)) for n in str(asked.draws).split(",")] + [("top_k", asked.top)]
    kept: dict[tuple[str, int], list[Kept]] = {form: [] for form in forms}
    off, dense, outcomes = {form: torch.zeros(2) for form in forms}, torch.zeros(2), dict.fromkeys(forms, 0.0)
    for hidden, own in zip(theirs, mine, strict=True):
        log_p, q = torch.log_softmax(hidden @ head.T, -1), torch.softmax(own @ head.T, -1)
        p, uniform = log_p.exp(), torch.rand(len(log_p), generator=generator)
        dense += torch.stack([(q - p).square().sum(), ((q - p) @ head).square().sum()])
        for form in forms:
            if form[0] == "samples":
                ids, shares, _ = draw_sampled(log_p, uniform, form[1])
                kept[form].append(Sampled(ids, shares, -(p * log_p).sum(-1), 1.0))
            else:  # what is not kept is taken from all others in the student's proportions: another loss, not shown here
                ids, values = topk_log_probs(log_p, form[1])
                kept[form].append(TopK(ids, values, 1.0))
                continue
            off[form] += error(p, q, head, ids, shares)
            outcomes[form] += float((shares > 0).sum())
    positions = sum(one.counted for one in examples)
    for form in forms:
        meta = {
            "temperature": 1.0,
            "outcomes": task.outcomes,
            "top_k": None,
            "samples": None,
            form[0]: form[1],
        }
        size = bytes_on_disk(examples, kept[form], meta) / positions
        errors = (
            ""
            if form[0] == "top_k"
            else f"{outcomes[form] / positions:5.1f} outcomes, errors "
            + ", ".join(f"{value:.4f}" for value in (off[form] / dense).tolist())
        )
        print(f"{form[0]}: {form[1]:<4} {size:6.1f} bytes a token   {errors}")


if __name__ == "__main__":
    main()
