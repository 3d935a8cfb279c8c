"""What the baselines of `evaluate.baselines` need: models as local folders, and the labelled training rows as texts."""

from pathlib import Path
from typing import Any

from ..data.encode import read_examples
from ..data.split import Prepared
from ..errors import DataError
from ..evaluate import text_read
from ..files import hash_json, write_jsonl
from ..progress import Watch
from ..recipe import Baseline
from ..tasks.classification import label_order
from .fetching import fetched
from .training import labelled

LABELLED = "labelled-rows.jsonl"
"""The texts that word counts are trained on."""


def prepare_baselines(
    recipe: Any, rows: Prepared, labels: list[str], place: Path, watch: Watch
) -> dict[str, Any]:
    """{"models": name -> where and what it is, "labelled": sum of the rows that word counts learn from, or None}."""
    wanted = [one for one in recipe.evaluate.baselines if isinstance(one, Baseline)]
    models = {one.name: fetched(one.model, one, recipe.task, watch) for one in wanted}
    for name, found in models.items():
        if recipe.task == "classification":
            label_order(Path(found["folder"]), labels, f"evaluate.baselines: {name}")
    if "tfidf" not in recipe.evaluate.baselines:
        return {"models": models, "labelled": None}
    known = {example.row for example in labelled(read_examples(place / "train.parquet"))}
    texts = [
        {"text": text_read(row), "label": row["label"]}
        for row in [*rows.train, *rows.extra]
        if row["id"] in known and row.get("label")
    ]
    if len({row["label"] for row in texts}) < 2:
        raise DataError(
            "evaluate.baselines: tfidf learns from labelled training rows of at least two labels, and there are none; remove it."
        )
    write_jsonl(place / LABELLED, texts)
    return {"models": models, "labelled": hash_json(texts)}
