"""Probabilities of label names, against the naive product of each token's probability."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks.zero_shot import ZeroShot
from tiny import save_language_model

TEXTS = ["the old river", "a film and a book, and the night", "good"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_language_model(tmp_path_factory.mktemp("zero") / "m")
    return AutoModelForCausalLM.from_pretrained(folder).double(), load_tokenizer(folder)


@torch.no_grad()
def naive(model, tokenizer, asked: ZeroShot, text: str) -> torch.Tensor:
    """One text, one label and one token at a time."""
    scores = []
    for name in asked.labels:
        ids, total = asked.ids(text), 0.0
        for token in tokenizer(name, add_special_tokens=False)["input_ids"]:
            total += float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
            ids = [*ids, token]
        scores.append(total)
    return torch.tensor(scores, dtype=torch.float64).log_softmax(-1)


@pytest.mark.parametrize("labels", [["good", "bad"], ["a good film", "bad", "never written well"]])
def test_a_label_has_the_probability_of_all_its_tokens(model, labels):
    asked = ZeroShot(*model, labels, examples=[("the night", labels[0])])
    found = asked.log_probs(TEXTS, batch_size=2)
    assert torch.allclose(found.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    for row, text in zip(found, TEXTS, strict=True):
        assert torch.allclose(row, naive(*model, asked, text), atol=1e-6)


def test_calibration_makes_a_text_without_content_even(model):
    asked = ZeroShot(*model, ["good", "bad"], calibrated=True)
    plain = ZeroShot(*model, ["good", "bad"])
    free = (plain.log_probs(["N/A", "", "[MASK]"]).exp().mean(0)).log()
    wanted = (plain.log_probs(TEXTS) - free).log_softmax(-1)
    assert torch.allclose(asked.log_probs(TEXTS), wanted, atol=1e-9)
    assert not torch.allclose(asked.log_probs(TEXTS), plain.log_probs(TEXTS), atol=1e-3)


def test_the_order_of_the_texts_and_the_batch_change_nothing(model):
    asked = ZeroShot(*model, ["good", "bad"])
    assert torch.allclose(
        asked.log_probs(TEXTS), asked.log_probs(TEXTS[::-1], batch_size=1).flip(0), atol=1e-9
    )


def test_labels_that_are_the_same_and_unknown_examples_are_said_in_one_sentence(model):
    with pytest.raises(RecipeError, match="labels: good, good are not all different to the tokenizer"):
        ZeroShot(*model, ["good", "good"])
    with pytest.raises(RecipeError, match="examples: 'fine' is none of the labels good, bad"):
        ZeroShot(*model, ["good", "bad"], examples=[("x", "fine")])


def test_a_text_that_is_too_long_loses_its_end_and_not_the_question(model):
    """The tiny model reads 256 positions."""
    asked = ZeroShot(*model, ["good", "bad"])
    ids = asked.ids("the old river " * 200)
    assert 200 < len(ids) <= 255
    said = asked.tokenizer.decode(ids)
    assert "the old river" in said and said.rstrip().endswith("assistant")
    assert "Reply with one of them only." in said


def test_a_pair_is_asked_about_as_a_pair(model):
    asked = ZeroShot(*model, ["good", "bad"], calibrated=True)
    found = asked.log_probs([("the night", "a book"), "the night"])
    alone = asked.log_probs([("the night", "a book")])
    assert torch.allclose(found[:1], alone, atol=1e-9)
    assert "Second text: a book" in asked.tokenizer.decode(asked.ids(("the night", "a book")))
