"""The teacher stage of a panel, or of a model with a prompt of its own: its members' folders, and weights or tables judged on labelled rows."""

from pathlib import Path
from typing import Any

import torch

from ..data.encode import Example, read_examples
from ..errors import DataError
from ..files import atomic_folder, hash_json, read_json
from ..losses import log_softmax
from ..losses.fused import chunks
from ..losses.pooling import learned_weights, reliability_table
from ..models.machine import device
from ..progress import Watch
from ..recipe import Member, Pool
from ..tasks import Task, on_device
from ..tasks.panel import write_panel
from .prepare import ROUTES
from .training import labelled


def make_panel(
    teacher: Any, task: Task, facts: dict[str, Any], batch_size: int, place: Path, watch: Watch
) -> dict[str, Any]:
    """Returns: the stage's result: the panel's folder, its identity, and the folder of the member that lends its layers."""
    pool = teacher.pool or Pool()
    members = facts["panel"] or [facts["teacher"]]
    folders = [Path(member["folder"]) for member in members]
    weights = [member.weight for member in teacher.panel or [Member(model=teacher.model)]]
    settings: dict[str, Any] = {
        "pool": pool.by,
        "context": teacher.context,
        "weights": [weight / sum(weights) for weight in weights],
    }
    known = []
    if pool.by in ("learned", "validation"):
        known = judged_by(place.parent / "prepare", facts)[: pool.rows]
    if pool.by == "learned":
        settings |= {"pool": "mean", "weights": _learned(folders, task, known, batch_size, watch)}
    elif pool.by == "validation":
        settings |= {"pool": "table", "table": _table(folders, task, known, batch_size, watch)}
    elif pool.by == "column":
        routes = _numbered(
            read_json(place.parent / "prepare" / ROUTES), [member["name"] for member in members]
        )
        settings |= {"pool": "mean", "routes": routes}
    with atomic_folder(place / "panel") as part:
        write_panel(part, folders, **settings)
        task.tokenizer.save_pretrained(part)
    identity = hash_json([[member["identity"] for member in members], settings])
    shown = {name: value for name, value in settings.items() if name in ("pool", "weights", "table")}
    return {
        "folder": f"{place.name}/panel",
        "lead": {"folder": str(folders[0])},
        "identity": f"panel:{identity}",
        "panel": [member["name"] for member in members],
        **shown,
    }


def judged_by(prepared: Path, facts: dict[str, Any]) -> list[Example]:
    """Labelled rows that tell how good the members are: those of `data.validation` if it has any, or else training rows.

    Training rows flatter a member that has learned them; nothing is ever judged by what the models are measured on.
    """
    names = ["validation", "train"] if facts["validation"] else ["train"]
    found = (labelled(read_examples(prepared / f"{name}.parquet")) for name in names)
    return next((some for some in found if some), [])


def _learned(
    folders: list[Path], task: Task, known: list[Example], batch_size: int, watch: Watch
) -> list[float]:
    """Weights under which the labels of `known` are most probable."""
    picked = []
    for folder in folders:
        found = [
            log_p.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)[labels >= 0]
            for log_p, labels in _said(folder, task, known, batch_size, watch)
        ]
        picked.append(torch.cat(found))
    weights: list[float] = learned_weights(torch.stack(picked, 1)).tolist()
    watch.note("  weights learned: " + ", ".join(f"{weight:.3f}" for weight in weights))
    return weights


def _table(
    folders: list[Path], task: Task, known: list[Example], batch_size: int, watch: Watch
) -> list[list[float]]:
    """How often each member is right when it says each class."""
    said, labels = [], torch.empty(0)
    for folder in folders:
        parts = list(_said(folder, task, known, batch_size, watch))
        said.append(torch.cat([log_p for log_p, _ in parts]))
        labels = torch.cat([label for _, label in parts])
    table = reliability_table(torch.stack(said), labels)
    for folder, row in zip(folders, table.tolist(), strict=True):
        shares = ", ".join(f"{label} {share:.2f}" for label, share in zip(task.labels, row, strict=True))
        watch.note(f"  {folder.name} is right when it says: {shares}")
    found: list[list[float]] = table.tolist()
    return found


def _said(folder: Path, task: Task, known: list[Example], batch_size: int, watch: Watch) -> Any:
    """(log-probabilities [n, V], labels [n]) of a member, chunk by chunk."""
    if not known:
        raise DataError("teacher.pool: no row has a label to judge the members by; use by: mean.")
    model = task.load(folder).to(device())
    for start in range(0, len(known), batch_size):
        with torch.inference_mode():
            scores = task.scores(model, on_device(task.collate(known[start : start + batch_size])))
        watch.step(f"{folder.name} is judged", start + batch_size, len(known))
        for at in chunks(len(scores.labels), task.outcomes, scores.hidden.device):
            yield log_softmax(scores.head.logits(scores.hidden[at])).cpu(), scores.labels[at].cpu()


def _numbered(routes: dict[str, str], names: list[str]) -> dict[str, int]:
    """Key of an example -> the number of the member that its row names.  Raises: DataError for a name that nobody has."""
    for name in routes.values():
        if name not in names:
            raise DataError(
                f"teacher.pool.column: a row names the member {name!r}, and the panel has {', '.join(names)}; "
                "mend the rows, or give the member that name."
            )
    return {key: names.index(name) for key, name in routes.items()}
