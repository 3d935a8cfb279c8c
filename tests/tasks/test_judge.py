"""Scores of answers, against the probabilities written out."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification

import tiny
from stillhouse.data.formats import with_id
from stillhouse.data.split import Prepared
from stillhouse.errors import DataError, RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Filter, parse_recipe
from stillhouse.steps import judging
from stillhouse.tasks.judge import Judge

PAIRS = [("the old river?", "a book"), ("a film?", "the night was good and quiet")]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("judge") / "lm", layers=2)


@torch.no_grad()
def test_a_language_models_score_is_its_probability_of_yes_against_no(language):
    tokenizer, model = load_tokenizer(language), AutoModelForCausalLM.from_pretrained(language).double()
    found = Judge(language, "{text} {pair} {labels}", "float32").scores(PAIRS)
    for score, (question, answer) in zip(found, PAIRS, strict=True):
        turns = [{"role": "user", "content": f"{question} {answer} yes, no"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        shares = []
        for word in ("yes", "no"):
            ids, total = tokenizer(text, add_special_tokens=False)["input_ids"], 0.0
            for token in tokenizer(word, add_special_tokens=False)["input_ids"]:
                total += float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
                ids = [*ids, token]
            shares.append(total)
        assert score == pytest.approx(float(torch.tensor(shares).softmax(-1)[0]), abs=1e-4)


@torch.no_grad()
def test_a_reward_models_score_is_the_sigmoid_of_its_output_however_rows_are_padded(language, tmp_path):
    tokenizer = load_tokenizer(language)
    config = LlamaConfig.from_pretrained(language)
    config.num_labels = 1
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = Judge(tmp_path, None, "float32").scores(PAIRS)
    for score, (question, answer) in zip(found, PAIRS, strict=True):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)[
            "input_ids"
        ]
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
        last = max(n for n, token in enumerate(ids) if token != tokenizer.pad_token_id)
        assert score == pytest.approx(float(model.score(hidden[last]).sigmoid()), abs=1e-5)


def test_a_classifier_of_two_labels_is_no_judge(tmp_path):
    tiny.save_classifier(tmp_path / "c")
    with pytest.raises(RecipeError, match="has 2 outputs, and a reward model has one"):
        Judge(tmp_path / "c", None, "float32").scores(PAIRS)


def rows(count):
    return [
        with_id({"where": f"x:{n}", "prompt": f"Is {n}?", "completion": f" {n}"}) for n in range(count)
    ]  # fmt: skip


def test_rows_that_the_judge_scores_low_are_kept_aside_with_their_score(monkeypatch, tmp_path):
    judge = SimpleNamespace(scores=lambda pairs: [int(answer) / 10 for _, answer in pairs])
    monkeypatch.setattr(judging, "make_judge", lambda models: judge)
    train = rows(8)
    count = {"read": 8, "added": 0, "held_out": 0, "kept": 8, "dropped": {}}
    made = Prepared(train, [], [], {}, [], {"train": {**count, "kept": 4, "read": 4}, "written": {**count, "kept": 4, "read": 4}},
                    written=frozenset(row["id"] for row in train[:4]))  # fmt: skip
    recipe = SimpleNamespace(data=SimpleNamespace(filter=Filter(min_score=0.5), judge=None))
    found = judging.judged(recipe, made, {}, tmp_path, Silent())
    assert [row["completion"] for row in found.train] == [" 5", " 6", " 7"]
    assert [(row["set"], row["score"]) for row in found.dropped][3:] == [("written", 0.3), ("train", 0.4)]
    for of in found.counts.values():
        assert of["read"] == of["kept"] + sum(of["dropped"].values())
    with pytest.raises(DataError, match="no row is left of 8"):
        judging.judged(
            SimpleNamespace(data=SimpleNamespace(filter=Filter(min_score=0.9), judge=None)),
            made,
            {},
            tmp_path,
            Silent(),
        )


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        ({"filter": {"min_score": 0.5}}, "nobody scores the answers; name a model in data.judge"),
        ({"generate": [{"kind": "answers", "choose": "judge"}]}, "choose: judge: nobody scores"),
        ({"judge": {"model": "m"}}, "data.judge: is never asked"),
        ({"generate": [{"kind": "answers", "choose": "checker"}]}, "checker: name your function"),
        ({"writer": {"others": [{"model": "m"}]}}, "data.writer.others: only answers"),
    ],
)
def test_what_is_missing_for_a_choice_is_said(tmp_path, data, remedy):
    recipe = tiny.language_recipe(tmp_path)
    recipe["data"] = {**recipe["data"], **data}
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe)
    assert remedy in str(error.value)
