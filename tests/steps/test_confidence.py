"""How sure a teacher is of a row, against one row and one token at a time."""

import pytest
import torch

from stillhouse.data.encode import IGNORED
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.steps.confidence import confidences, sure
from stillhouse.tasks import make_task
from tiny import completions, opinions, save_classifier, save_language_model


@torch.no_grad()
def test_a_language_models_confidence_is_the_geometric_mean_over_the_answer(tmp_path):
    folder = save_language_model(tmp_path / "m")
    task = make_task("causal_lm", load_tokenizer(folder), 64)
    rows = [{**row, "id": str(n), "where": f"x:{n}"} for n, row in enumerate(completions(9))]
    examples, _ = task.encode(rows)
    found = confidences(examples, task, folder, 4, Silent())
    model = task.load(folder)
    for example in examples:
        log_p = (
            model(torch.tensor([example.input_ids])).logits[0, :, : task.outcomes].double().log_softmax(-1)
        )
        own = [log_p[n - 1, label] for n, label in enumerate(example.labels) if label != IGNORED]
        assert found[example.key] == pytest.approx(float(torch.stack(own).mean().exp()), rel=1e-4)
    middle = sorted(found.values())[4]
    kept, dropped = sure(examples, middle, found, task)
    assert len(kept) == 5 and [row["reason"] for row in dropped] == ["teacher unsure"] * 4
    assert all(row["confidence"] < middle and row["where"] and row["text"] for row in dropped)


@torch.no_grad()
def test_a_classifier_is_asked_for_the_label_or_where_there_is_none_for_its_favourite(tmp_path):
    folder = save_classifier(tmp_path / "c")
    task = make_task("classification", load_tokenizer(folder), 32, ["bad", "good"])
    rows = [{**row, "id": str(n), "where": f"x:{n}"} for n, row in enumerate(opinions(6))]
    for row in rows[3:]:
        row["label"] = None
    examples, _ = task.encode(rows)
    found = confidences(examples, task, folder, 4, Silent())
    model = task.load(folder)
    for example in examples:
        shares = model(torch.tensor([example.input_ids])).logits[0].double().softmax(-1)
        label = example.labels[0]
        wanted = shares.max() if label == IGNORED else shares[label]
        assert found[example.key] == pytest.approx(float(wanted), rel=1e-4)
