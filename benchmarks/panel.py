"""A panel of three teachers, one of them bad on one class: which pool teaches the better student?

Film-review sentences as MiniLM reads them (its mean-pooled states, frozen, so that this runs in minutes).  Three members
are linear classifiers, each trained on rows of its own; the third was told that most of its positive rows are negative.
A student is a narrow two-layer network that sees the soft targets of a pool and no label.  Weights and tables are judged
on labelled rows that no member saw.  Everything is repeated with other rows; accuracy on held-out rows, with the interval
over repeats of the paired difference.
"""

from typing import Any

import numpy as np
import torch
from common import arguments
from torch import Tensor, nn

from models import minilm, reviews
from stillhouse.losses import forward_kl, hard_cross_entropy, log_softmax
from stillhouse.losses.pooling import learned_weights, pooled, reliability_table
from stillhouse.models.load import load_tokenizer

FLIPPED = 0.7
"""Share of the third member's positive rows that it was told are negative."""
TEMPERATURE = 1.0


def main() -> None:
    """Members, pools and students, `repeats` times."""
    asked = arguments(
        str(__doc__), rows=600, judged=300, student_rows=1000, held_out=1000, repeats=10, seed=0
    )
    states, labels = embedded(asked.rows * 3 + asked.judged + asked.student_rows + asked.held_out, asked.seed)
    found: dict[str, list[float]] = {}
    chosen: list[Tensor] = []
    for repeat in range(asked.repeats):
        for name, value in once(asked, states, labels, asked.seed + repeat, chosen).items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(
            f"  {name:<32} {np.mean(values):.4f}  (± {np.std(values, ddof=1):.4f} over {len(values)} repeats)"
        )
    base = np.array(found["student of: mean"])
    for name in [name for name in found if name.startswith("student of:") and name != "student of: mean"]:
        gap = np.array(found[name]) - base
        half = 2.262 * gap.std(ddof=1) / np.sqrt(len(gap))  # Student's t for 10 repeats
        print(f"  {name} − student of: mean: {gap.mean():+.4f} ± {half:.4f}")
    shares = torch.stack(chosen).mean(0)
    print(f"  the table's share of rows that say positive / negative given to member 3: {shares.tolist()}")


def once(asked: Any, states: Tensor, labels: Tensor, seed: int, chosen: list[Tensor]) -> dict[str, float]:
    """Accuracy of every member, pool and student on one cut of the rows."""
    torch.manual_seed(seed)
    order = torch.randperm(len(states))
    sizes = [asked.rows] * 3 + [asked.judged, asked.student_rows, asked.held_out]
    *parts, judged, learned, held = order.split(sizes)
    members = []
    for number, part in enumerate(parts):
        told = labels[part].clone()
        if number == 2:
            told[(told == 1) & (torch.rand(len(told)) < FLIPPED)] = 0
        members.append(fitted(nn.Linear(states.shape[1], 2), states[part], told, None))
    said = {at: torch.stack([log_softmax(one(states[rows])) for one in members]).detach()
            for at, rows in (("judged", judged), ("learned", learned), ("held", held))}  # fmt: skip
    table = reliability_table(said["judged"], labels[judged])
    weights = learned_weights(
        said["judged"].gather(-1, labels[judged].expand(3, -1).unsqueeze(-1)).squeeze(-1).T
    )
    even = torch.full((3,), 1 / 3)
    pools = {
        "mean": ("mean", even), "geometric": ("geometric", even), "confidence": ("confidence", even),
        "learned weights": ("mean", weights), "validation table": ("table", even),
    }  # fmt: skip
    routed = table.T[said["held"].argmax(-1), torch.arange(3).unsqueeze(-1)].argmax(0) == 2
    truth = labels[held]
    chosen.append(torch.stack([routed[truth == 1].float().mean(), routed[truth == 0].float().mean()]))
    found = {f"member {n + 1}": accuracy(said["held"][n], labels[held]) for n in range(3)}
    for name, (pool, share) in pools.items():
        opinions = {
            at: pooled(list(one), share.expand(one.shape[1], -1), pool, table) for at, one in said.items()
        }
        found[f"panel: {name}"] = accuracy(opinions["held"], labels[held])
        torch.manual_seed(seed)
        student = fitted(narrow(states.shape[1]), states[learned], None, opinions["learned"])
        found[f"student of: {name}"] = accuracy(student(states[held]), labels[held])
    torch.manual_seed(seed)
    student = fitted(narrow(states.shape[1]), states[learned], labels[learned], None)
    found["student of the true labels"] = accuracy(student(states[held]), labels[held])
    return found


def narrow(width: int) -> nn.Module:
    """The student."""
    return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 2))


def fitted(model: nn.Module, x: Tensor, hard: Tensor | None, soft: Tensor | None) -> nn.Module:
    """Trained on labels or on opinions, the same way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    for _ in range(200):
        z = model(x)
        if soft is not None:
            loss = forward_kl(z, soft, temperature=TEMPERATURE).mean()
        else:
            assert hard is not None
            loss = hard_cross_entropy(z, hard).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def accuracy(z: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    return float((z.argmax(-1) == labels).float().mean())


@torch.inference_mode()
def embedded(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """MiniLM's mean-pooled states of so many sentences, standardised, and their labels."""
    from transformers import AutoModel

    model, tokenizer = AutoModel.from_pretrained(minilm()), load_tokenizer(minilm())
    rows = reviews("rotten_tomatoes")
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    texts = sorted((rows[n] for n in order), key=lambda row: len(row["text"]))
    found = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(
            [row["text"] for row in texts[start : start + 64]], padding=True, truncation=True, max_length=64,
            return_tensors="pt",
        )  # fmt: skip
        mask = batch["attention_mask"].unsqueeze(-1)
        found.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    states = torch.cat(found)
    states = (states - states.mean(0)) / states.std(0)
    return states.clone(), torch.tensor([int(row["label"]) for row in texts])


if __name__ == "__main__":
    main()
