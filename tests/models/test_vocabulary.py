"""Fewer tokens: the same logits on those that stay, the same cutting of text that needs no others, and nothing unsayable."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import tiny
from families import FAMILIES, family, rows
from stillhouse.errors import RecipeError
from stillhouse.models.load import load_model, load_tokenizer
from stillhouse.models.shrink.vocabulary import kept_tokens, trim_model, trim_tokenizer, used_tokens

STRANGE = [
    "Zürich — naïve CO₂ 東京!\n\t<3  x",
    "the quiet wizard jumps",
    "<|im_start|>user\nthe river<|im_end|>",
]


def unigram() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(
        tiny.sentences(300),
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )


def saved(kind: str, folder: Path) -> PreTrainedTokenizerFast:
    if kind == "wordpiece":
        tiny.save_classifier(folder)
        return load_tokenizer(folder)
    tokenizer = unigram() if kind == "unigram" else tiny.language_tokenizer()
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_text_that_needs_no_other_token_is_cut_as_before_and_comes_back_the_same(
    kind: str, tmp_path: Path
) -> None:
    old = saved(kind, tmp_path)
    texts = tiny.sentences(12, seed=5)
    kept = kept_tokens(old, used_tokens(old(text)["input_ids"] for text in texts))
    assert len(kept) < len(old) * 0.95
    trim_tokenizer(tmp_path, kept)
    new = AutoTokenizer.from_pretrained(str(tmp_path))
    assert len(new) == len(kept) == max(new.get_vocab().values()) + 1
    for text in texts:
        assert [kept[token] for token in new(text)["input_ids"]] == old(text)["input_ids"]
        ids = new(text)["input_ids"]
        assert new.decode(ids, skip_special_tokens=True) == old.decode(
            old(text)["input_ids"], skip_special_tokens=True
        )
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"):
        assert getattr(new, name) == getattr(old, name)
        if getattr(old, name) is not None:
            assert kept[new.convert_tokens_to_ids(getattr(new, name))] == old.convert_tokens_to_ids(
                getattr(old, name)
            )


@pytest.mark.parametrize("count", [None, 290])
def test_a_byte_level_tokenizer_can_still_say_anything(count: int | None, tmp_path: Path) -> None:
    old = saved("bpe", tmp_path)
    used = used_tokens(old(text)["input_ids"] for text in tiny.sentences(12, seed=5))
    kept = kept_tokens(old, used, count)
    assert count is None or len(kept) <= count
    trim_tokenizer(tmp_path, kept)
    new = load_tokenizer(tmp_path)
    for text in STRANGE:
        assert new.decode(new(text)["input_ids"]) == text
    assert new.chat_template == old.chat_template


def test_what_a_token_is_merged_from_stays_with_it(tmp_path: Path) -> None:
    """Without the steps on the way, a kept token could never be reached, and text would silently fall to bytes."""
    old = saved("bpe", tmp_path)
    longest = max(
        old.get_vocab(), key=lambda piece: (len(piece), piece) if not piece.startswith("<|") else (0, "")
    )
    number = old.convert_tokens_to_ids(longest)
    text = old.decode([number])
    kept = kept_tokens(old, used_tokens([[number]]))
    trim_tokenizer(tmp_path, kept)
    assert (
        [kept[token] for token in load_tokenizer(tmp_path)(text)["input_ids"]]
        == old(text)["input_ids"]
        == [number]
    )


def test_the_most_frequent_tokens_are_those_that_stay(tmp_path: Path) -> None:
    old = saved("bpe", tmp_path)
    words = old.encode(" river")
    other = old.encode(" always")
    assert len(words) == len(other) == 1
    kept = kept_tokens(old, used_tokens([words * 9 + other]), most=256 + 2 + 5)
    assert words[0] in kept
    assert other[0] not in kept
    with pytest.raises(RecipeError, match="100 tokens are too few.*258"):
        kept_tokens(old, used_tokens([words]), most=100)


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("mistral", "gemma3", "bart classifier")]
)
def test_logits_of_kept_tokens_are_what_they_were(name: str, tmp_path: Path) -> None:
    model, inputs = family(name), rows(family(name))
    kept = sorted(
        {
            0,
            1,
            2,
            *range(5, 90, 7),
            *(t for key, ids in inputs.items() if "ids" in key for t in ids.flatten().tolist()),
        }
    )
    renumber = {old: new for new, old in enumerate(kept)}
    with torch.no_grad():
        before = model(**inputs).logits
    trim_model(model, kept)
    mapped = {
        key: value.clone().apply_(lambda token: renumber[int(token)]) if "ids" in key else value
        for key, value in inputs.items()
    }
    with torch.no_grad():
        after = model(**mapped).logits
    expected = before if "Classification" in type(model).__name__ else before[..., kept]
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(type(model).from_pretrained(tmp_path)(**mapped).logits, after)
    assert model.config.get_text_config().vocab_size == len(kept)


def test_a_family_without_a_table_is_trimmed_by_its_two_embeddings() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, eos_token_id=90)).eval()
    kept = [3, 5, 8, 90]
    with torch.no_grad():
        before = model(torch.tensor([[3, 8, 5]])).logits[..., kept]
        trim_model(model, kept)
        torch.testing.assert_close(model(torch.tensor([[0, 2, 1]])).logits, before)
    assert model.config.eos_token_id == 3
    assert model.generation_config.eos_token_id == 3
    assert model.config.bos_token_id is None, "a token that is gone is not named"


def test_rows_that_pad_the_head_go_too(tmp_path: Path) -> None:
    folder = tiny.save_language_model(tmp_path, pad_to=448)
    tokenizer = load_tokenizer(folder)
    kept = kept_tokens(tokenizer, used_tokens([tokenizer("the old river")["input_ids"]]))
    model = trim_model(load_model(folder, "AutoModelForCausalLM"), kept)
    assert model.lm_head.weight.shape[0] == model.get_input_embeddings().weight.shape[0] == len(kept)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert kept[model.config.eos_token_id] == tokenizer.eos_token_id
