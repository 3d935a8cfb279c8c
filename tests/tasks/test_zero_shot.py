"""Probabilities of label names, against the naive product of each token's probability."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks.zero_shot import CONTENT_FREE, ZeroShot, information, priors, without_content
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
        for token in asked.names[asked.labels.index(name)]:
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


@pytest.mark.parametrize("labels", [["good", "bad"], ["a good film", "bad", "never written well"]])
def test_in_plain_text_a_name_goes_on_after_a_space(model, labels):
    asked = ZeroShot(*model, labels, examples=[("the night", labels[0])], form="plain")
    shown = f"Labels: {', '.join(labels)}.\nText: the night\nLabel: {labels[0]}\n\n"
    assert asked._prompt("good") == f"{shown}Labels: {', '.join(labels)}.\nText: good\nLabel:"
    for row, text in zip(asked.log_probs(TEXTS, batch_size=2), TEXTS, strict=True):
        whole = asked.tokenizer(f"{asked._prompt(text)} {labels[0]}")["input_ids"]
        assert whole == [*asked.ids(text), *asked.names[0]]
        assert torch.allclose(row, naive(*model, asked, text), atol=1e-6)


def test_a_prior_of_the_texts_makes_them_even_and_keeps_their_order(model):
    plain = ZeroShot(*model, ["good", "bad"])
    before = plain.log_probs(TEXTS)
    asked = ZeroShot(*model, ["good", "bad"], prior=priors(TEXTS, before))
    after = asked.log_probs(TEXTS)
    wanted = before.exp() / before.exp().mean(0)
    torch.testing.assert_close(after.exp(), wanted / wanted.sum(-1, keepdim=True))
    assert not torch.allclose(before, after, atol=1e-3)
    assert (before[:, 0] - before[:, 1]).argsort().tolist() == (after[:, 0] - after[:, 1]).argsort().tolist()


def test_texts_without_content_are_of_the_kinds_that_are_there():
    assert without_content({"text"}) == list(CONTENT_FREE)
    assert without_content({"pair"}) == [(text, text) for text in CONTENT_FREE]
    assert len(without_content({"text", "pair"})) == 2 * len(CONTENT_FREE)


def test_information_is_zero_where_all_texts_are_told_the_same_and_the_entropy_where_each_is_certain():
    same = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log().expand(7, 3)
    assert information(same) == pytest.approx(0.0, abs=1e-12)
    certain = torch.eye(3, dtype=torch.float64).log()
    assert information(certain) == pytest.approx(math.log(3))
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    naive = sum(0.5 * p[row, c] * math.log(p[row, c] / p[:, c].mean()) for row in range(2) for c in range(2))
    assert information(p.log()) == pytest.approx(float(naive), rel=1e-12)


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
    both = [("the night", "a book"), "the night"]
    free = without_content({"text", "pair"})
    prior = priors(free, ZeroShot(*model, ["good", "bad"]).log_probs(free))
    asked = ZeroShot(*model, ["good", "bad"], prior=prior)
    assert set(prior) == {"text", "pair"} and prior["text"] != prior["pair"]
    found = asked.log_probs(both)
    alone = asked.log_probs([("the night", "a book")])
    assert torch.allclose(found[:1], alone, atol=1e-9)
    assert "Second text: a book" in asked.tokenizer.decode(asked.ids(("the night", "a book")))


def test_a_kind_of_text_without_a_prior_is_told_as_it_is(model):
    prior = {"text": [-2.0, -0.1]}
    plain = ZeroShot(*model, ["good", "bad"])
    asked = ZeroShot(*model, ["good", "bad"], prior=prior)
    pair, text = [("the night", "a book")], ["the night"]
    torch.testing.assert_close(asked.log_probs([*pair, *text])[:1], plain.log_probs(pair))
    wanted = (plain.log_probs(text) - torch.tensor(prior["text"], dtype=torch.float64)).log_softmax(-1)
    torch.testing.assert_close(asked.log_probs([*pair, *text])[1:], wanted)


class Bigrams(torch.nn.Module):
    """A model by hand: which token follows which with what probability; all that is not said is even."""

    def __init__(self, model, after: dict[int, dict[int, float]]):
        super().__init__()
        size = model.config.vocab_size
        self.config, self.device = model.config, model.device
        table = torch.full((size, size), 1 / size, dtype=torch.float64)
        for token, others in after.items():
            table[token] = (1 - sum(others.values())) / (size - len(others))
            for other, p in others.items():
                table[token, other] = p
        self.table = table
        self.noise = (0.0,)
        """Added to the largest logit, in one pass after the other: what bfloat16 does with another length."""
        self.passes = 0

    def forward(self, input_ids, logits_to_keep, **_):
        logits = self.table.log()[input_ids[:, -logits_to_keep:]].clone()
        noise, self.passes = self.noise[self.passes % len(self.noise)], self.passes + 1
        return SimpleNamespace(
            logits=logits.scatter_add(
                -1, logits.argmax(-1, keepdim=True), torch.full_like(logits[..., :1], noise)
            )
        )


@pytest.mark.parametrize("goes_on", [0.02, 0.6, 1.0 - 1e-12])
def test_a_label_that_begins_another_is_said_only_where_the_other_is_not(model, goes_on):
    """The short name had all of the long one's probability, and so was always the more probable."""
    labels = ["good", "good film", "good film and book", "bad"]
    whole = ZeroShot(*model, labels)
    good, film, more = whole.names[0], whole.names[1][len(whole.names[0]) :], whole.names[2]
    assert whole.names[1][: len(good)] == good and more[: len(whole.names[1])] == whole.names[1]
    prompt = whole.ids("a text")
    after = {prompt[-1]: {good[0]: 0.5, whole.names[3][0]: 0.3}, good[-1]: {film[0]: goes_on}}
    after |= {one: {other: 0.99} for one, other in pairwise(film)}
    whole.module = Bigrams(model[0], after)
    table = whole.module.table

    def said(ids):
        steps = zip([prompt[-1], *ids], ids, strict=False)
        return math.prod(float(table[one, other]) for one, other in steps)

    # by enumeration: a name is said, and what comes next begins none of the longer names
    raw = [said(name) for name in whole.names]
    naive = torch.tensor([raw[0] - raw[1], raw[1] - raw[2], raw[2], raw[3]], dtype=torch.float64)
    found = whole.log_probs(["a text"])[0].exp()
    assert torch.allclose(found, naive / naive.sum(), rtol=1e-3, atol=1e-14)
    assert (found[1] + found[2] > found[0]) == (goes_on > 0.5)


@pytest.mark.parametrize("noise", [(0.1, -0.1), (-0.1, 0.1)])
def test_noise_between_two_passes_does_not_make_a_label_that_begins_another_impossible(model, noise):
    """Its rest came out as more than certain, and the short name dropped to e^-36 of what it was."""
    whole = ZeroShot(*model, ["good", "good film"])
    good, rest = whole.names[0], whole.names[1][len(whole.names[0]) :]
    prompt = whole.ids("a text")
    chain = [prompt[-1], *good, *rest]
    after = {one: {other: 0.9999} for one, other in pairwise(chain)}
    whole.module = Bigrams(model[0], after)
    whole.module.noise = noise
    found = float(whole.log_probs(["a text"])[0, 0].exp())
    wanted = 1.0 - math.prod([0.9999] * len(rest))
    assert found == pytest.approx(wanted, rel=0.3)
