"""Classifiers: pairs, labels, and the order of the outputs."""

import pytest
import torch

import tiny
from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import make_task
from stillhouse.tasks.classification import label_order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def task(folder):
    return make_task("classification", load_tokenizer(folder), 40, ["bad", "good"])


def row(text: str, **more: str) -> dict:
    return {"id": "0", "where": "row 1", "text": text, **more}


PAIRS = [("the old house", "a river"), ("good night", "the small quiet model learns slowly"), ("bad", "red")]


def test_a_pair_is_read_with_the_token_types_that_the_tokenizer_gives_it(task, folder):
    examples, _ = task.encode([row(a, pair=b, label="good") for a, b in PAIRS] + [row("alone", label="bad")])
    batch = task.collate(examples)
    assert batch["token_type_ids"].sum() > 0
    for number, (a, b) in enumerate([*PAIRS, ("alone", None)]):
        own = task.tokenizer(a, b)
        length = len(own["input_ids"])
        assert batch["input_ids"][number, :length].tolist() == own["input_ids"]
        assert batch["token_type_ids"][number, :length].tolist() == own["token_type_ids"]
        assert not batch["token_type_ids"][number, length:].any()


def test_a_batchs_logits_are_those_of_each_pair_read_alone_by_the_plain_model(task, folder):
    model = task.load(folder)
    examples, _ = task.encode([row(a, pair=b, label="good") for a, b in PAIRS])
    with torch.no_grad():
        together = task.scores(model, task.collate(examples))
        for number, (a, b) in enumerate(PAIRS):
            alone = model(**task.tokenizer(a, b, return_tensors="pt")).logits[0]
            torch.testing.assert_close(
                together.head.logits(together.hidden)[number], alone, rtol=1e-5, atol=1e-5
            )


def test_the_key_does_not_depend_on_the_label_but_on_where_the_second_text_begins(task):
    (good,), (bad,) = (task.encode([row("the house", label=label)])[0] for label in ("good", "bad"))
    assert good.key == bad.key
    (unlabelled,), _ = task.encode([row("the house")])
    assert unlabelled.labels == [-100]
    assert unlabelled.counted == 1
    examples = [
        task.encode([row(a, pair=b, label="good")])[0][0]
        for a, b in (("the old", "house"), ("the", "old house"))
    ]
    assert examples[0].key != examples[1].key


def test_a_label_that_the_training_rows_do_not_have_is_dropped_with_a_reason(task):
    examples, dropped = task.encode([row("the house", label="good"), row("a river", label="awful")])
    assert len(examples) == 1
    assert "'awful'" in dropped[0]["reason"]


def test_the_labels_are_put_in_the_order_of_the_teachers_outputs(tmp_path):
    swapped = tiny.save_classifier(tmp_path / "swapped", labels=("good", "bad"))
    assert label_order(swapped, ["bad", "good"]) == ["good", "bad"]
    with pytest.raises(RecipeError, match="its labels are"):
        label_order(swapped, ["bad", "fine"])


def test_a_model_with_more_outputs_than_labels_is_refused_and_not_cut(task, tmp_path):
    from transformers import AutoModelForSequenceClassification

    wide = tiny.save_classifier(tmp_path / "wide", labels=("bad", "good", "so so"))
    model = AutoModelForSequenceClassification.from_pretrained(wide)
    with pytest.raises(RecipeError, match="3 outputs for 2 labels"):
        task.verify(model)
