"""Fewer tokens of encoder–decoders: both sides read and say what they did, in the kept tokens' new numbers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

import subwords
from families import BART, T5
from stillhouse.files import read_json
from stillhouse.models.load import load_model, load_tokenizer
from stillhouse.models.shrink.cut import cut, skeleton_of
from stillhouse.models.shrink.importance import choose, unmeasured
from stillhouse.models.shrink.vocabulary import (
    kept_tokens,
    named_tokens,
    trim_model,
    trim_tokenizer,
    used_tokens,
)
from stillhouse.steps.vocabulary import KEPT, write_trimmed
from stillhouse.tasks import make_task
from subwords import PADDED, TOKENIZERS

FAMILIES = list(TOKENIZERS)
AUTO = "AutoModelForSeq2SeqLM"
NAMED = ("decoder_start_token_id", "pad_token_id", "eos_token_id", "bos_token_id", "forced_eos_token_id")
STRANGE = ["the river runs", "quiet wizard, 7 never?", "Ærøskøbing 東京", "a a a"]


def kept_of(folder: Path, most: int | None = None) -> list[int]:
    """What the rows need of the tokenizer in `folder`."""
    task = make_task("seq2seq", load_tokenizer(folder), 32)
    used = used_tokens(example.input_ids for example in task.encode(subwords.rows())[0])
    return kept_tokens(task.tokenizer, used, most, named_tokens(load_model(folder, AUTO).config))


def trimmed(family: str, place: Path, most: int | None = None) -> tuple[Path, Path, list[int]]:
    """(folder of the whole model, of the trimmed one, old ids of its tokens)"""
    whole, less = subwords.save(family, place / "whole"), place / "less"
    kept = kept_of(whole, most)
    write_trimmed(load_model(whole, AUTO), load_tokenizer(whole), kept, less)
    return whole, less, kept


def all_but_pieces(family: str) -> int:
    """Tokens that stay whatever the rows are."""
    return len(kept_tokens(TOKENIZERS[family](), used_tokens([])))


def batches(whole: Path, less: Path, kept: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows as the trimmed tokenizer cuts them, in both models' numbers."""
    task = make_task("seq2seq", load_tokenizer(less), 32)
    new = task.collate(task.encode(subwords.rows())[0])
    old = dict(new)
    for name in ("input_ids", "labels"):
        old[name] = new[name].clone().apply_(lambda token: kept[int(token)] if token >= 0 else token)
    return old, new


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_target_is_as_likely_as_before_given_that_a_kept_token_comes(
    family: str, limited: bool, tmp_path: Path
) -> None:
    """Logits of the whole model on kept tokens, and its probabilities over them, renormalised in float64."""
    most = all_but_pieces(family) + 6 if limited else None
    whole, less, kept = trimmed(family, tmp_path, most)
    before, after = load_model(whole, AUTO), load_model(less, AUTO)
    assert len(kept) <= (most or 0.9 * len(load_tokenizer(whole)))
    old, new = batches(whole, less, kept)
    tasks = [make_task("seq2seq", load_tokenizer(folder), 32) for folder in (whole, less)]
    expected = before(**tasks[0].inputs(before, old)).logits[..., kept]
    said = after(**tasks[1].inputs(after, new)).logits
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)
    counted = new["labels"] >= 0
    given = expected[counted].double().softmax(-1)
    tasks[1].verify(after)
    scores = tasks[1].scores(after, new)
    ours = scores.head.logits(scores.hidden).double().softmax(-1)
    torch.testing.assert_close(ours, given, rtol=1e-4, atol=1e-7)
    targets = scores.labels.tolist()
    assert [kept[token] for token in targets] == old["labels"][counted].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_model_that_was_trimmed_in_place_says_the_same_as_the_one_on_disk(
    family: str, tmp_path: Path
) -> None:
    """Its embeddings know their new number of rows, and which of them is padding (Marian's was the last)."""
    whole, less, kept = trimmed(family, tmp_path)
    here, there = trim_model(load_model(whole, AUTO), kept), load_model(less, AUTO)
    _, batch = batches(whole, less, kept)
    inputs = make_task("seq2seq", load_tokenizer(less), 32).inputs(there, batch)
    assert torch.equal(here(**inputs).logits, there(**inputs).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_and_bias_loses_the_same_rows_and_padded_ones_too(family: str, tmp_path: Path) -> None:
    whole, less, kept = trimmed(family, tmp_path)
    wide = len(load_tokenizer(whole)) + PADDED
    before, after = load_model(whole, AUTO).state_dict(), load_model(less, AUTO).state_dict()
    assert set(before) == set(after)
    tables = [name for name, tensor in before.items() if wide in tensor.shape]
    assert len(tables) >= 4  # shared, both sides', the head; and a bias
    for name, tensor in before.items():
        if name in tables:
            tensor = tensor.index_select(list(tensor.shape).index(wide), torch.tensor(kept))
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_cut_into_the_same_pieces_and_come_back_the_same(family: str, tmp_path: Path) -> None:
    whole, less, kept = trimmed(family, tmp_path)
    old, new = load_tokenizer(whole), AutoTokenizer.from_pretrained(str(less))
    assert type(new) is type(old)
    assert len(new) == len(kept) == max(new.get_vocab().values()) + 1
    for row in subwords.rows():
        for text in (row["prompt"], row["completion"]):
            ids, were = new(text)["input_ids"], old(text)["input_ids"]
            assert [kept[token] for token in ids] == were
            assert new.decode(ids, skip_special_tokens=True) == old.decode(were, skip_special_tokens=True)
            assert new.decode(ids, skip_special_tokens=True).strip() == text
        target = new(text_target=row["completion"])["input_ids"]
        assert [kept[token] for token in target] == old(text_target=row["completion"])["input_ids"]


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_could_be_said_can_still_be_said(family: str, limited: bool, tmp_path: Path) -> None:
    """Words that no row has, in smaller pieces; characters that nobody knew stay unknown."""
    whole, less, _ = trimmed(family, tmp_path, all_but_pieces(family) + 6 if limited else None)
    old, new = load_tokenizer(whole), load_tokenizer(less)
    for text in STRANGE:
        mine, theirs = (one.decode(one(text)["input_ids"], skip_special_tokens=False) for one in (new, old))
        assert mine == theirs
    assert len(new(STRANGE[1])["input_ids"]) > len(old(STRANGE[1])["input_ids"])
    if family == "bart":
        assert new.decode(new(STRANGE[2])["input_ids"], skip_special_tokens=True) == STRANGE[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_are_named_by_their_ids_are_the_same_tokens_under_new_ones(
    family: str, tmp_path: Path
) -> None:
    whole, less, kept = trimmed(family, tmp_path)
    before, after = load_model(whole, AUTO), load_model(less, AUTO)
    for settings in ("config", "generation_config"):
        old, new = getattr(before, settings).to_dict(), getattr(after, settings).to_dict()
        for name in NAMED:
            was = old.get(name)
            assert (None if new.get(name) is None else kept[new[name]]) == was, (settings, name)
        words = [[kept[one] for one in word] for word in new.get("bad_words_ids") or []]
        assert words == (old.get("bad_words_ids") or [])
        assert new.get("decoder_vocab_size") in (None, len(kept))
    assert before.config.decoder_start_token_id is not None
    added = {str(token) for token in load_tokenizer(whole).added_tokens_decoder.values()}
    assert added == {str(token) for token in load_tokenizer(less).added_tokens_decoder.values()}
    if family == "t5":
        assert {"<extra_id_0>", "<extra_id_3>"} <= added
    if family == "bart":
        assert kept[after.generation_config.forced_bos_token_id] == load_tokenizer(whole).bos_token_id
    if family == "marian":
        assert after.generation_config.bad_words_ids == [[len(kept) - 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_what_the_whole_model_writes_that_may_say_kept_tokens_alone(
    family: str, tmp_path: Path
) -> None:
    """By transformers' own greedy search, beginning and end included."""
    whole, less, kept = trimmed(family, tmp_path)
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(str(folder)) for folder in (whole, less))
    gone = sorted(set(range(before.config.vocab_size)) - set(kept))
    for row in subwords.rows(4):
        ids = load_tokenizer(less)(row["prompt"])["input_ids"]
        mine = after.generate(torch.tensor([ids]), max_new_tokens=7, do_sample=False)[0].tolist()
        read = torch.tensor([[kept[token] for token in ids]])
        theirs = before.generate(read, max_new_tokens=7, do_sample=False, suppress_tokens=gone)[0].tolist()
        assert [kept[token] for token in mine] == theirs
        assert len(mine) > 2


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_trimmed_is_cut_and_trimmed_again(family: str, tmp_path: Path) -> None:
    """A student of some of its layers, saved, loaded, and trimmed to fewer tokens once more."""
    _, less, _ = trimmed(family, tmp_path)
    model = load_model(less, AUTO)
    skeleton = skeleton_of(model)
    layers = {stack.name: [1, 3] for stack in skeleton.family.stacks}
    shape = skeleton.wanted((2, 2))
    student = cut(model, choose(unmeasured(model, skeleton), skeleton, shape, layers))
    student.save_pretrained(tmp_path / "student")
    load_tokenizer(less).save_pretrained(tmp_path / "student")
    assert sum(one.numel() for one in load_model(tmp_path / "student", AUTO).parameters()) == (
        skeleton.parameters(shape)
    )
    again = kept_of(tmp_path / "student", all_but_pieces(family) + 3)
    assert len(again) < len(read_json(less / KEPT))
    write_trimmed(
        load_model(tmp_path / "student", AUTO), load_tokenizer(tmp_path / "student"), again, tmp_path / "last"
    )
    old, new = batches(tmp_path / "student", tmp_path / "last", again)
    last, task = load_model(tmp_path / "last", AUTO), make_task("seq2seq", load_tokenizer(less), 32)
    expected = student(
        input_ids=old["input_ids"], attention_mask=old["attention_mask"],
        decoder_input_ids=task.inputs(student, old)["decoder_input_ids"],
    ).logits[..., again]  # fmt: skip
    torch.testing.assert_close(last(**task.inputs(last, new)).logits, expected, rtol=0, atol=1e-5)


UNKNOWN = {
    "blenderbot": lambda: hf.BlenderbotForConditionalGeneration(
        hf.BlenderbotConfig(**BART, tie_word_embeddings=False)
    ),
    "umt5": lambda: hf.UMT5ForConditionalGeneration(hf.UMT5Config(**T5, tie_word_embeddings=False)),
    "led": lambda: hf.LEDForConditionalGeneration(
        hf.LEDConfig(
            **BART, attention_window=4, max_encoder_position_embeddings=64, max_decoder_position_embeddings=64
        )
    ),
}


@pytest.mark.parametrize("family", UNKNOWN)
@torch.no_grad()
def test_a_family_without_a_table_loses_the_same_rows_on_both_sides(family: str) -> None:
    """Copies of the embeddings, where a side has one, and the bias of BART's relatives."""
    torch.manual_seed(0)
    model = UNKNOWN[family]().eval()
    sides = (model.get_encoder(), model.get_decoder())
    for side in sides:
        table = side.get_input_embeddings()
        table.weight = torch.nn.Parameter(torch.randn_like(table.weight))
    if "final_logits_bias" in dict(model.named_buffers()):
        model.final_logits_bias.normal_()
    kept = [0, 1, 2, 7, 30, 31, 95]
    read = torch.tensor([[3, 5, 6, 2], [4, 4, 3, 2]])
    old = torch.tensor(kept)[read]
    before = model(input_ids=old, decoder_input_ids=old.flip(0)).logits[..., kept]
    trim_model(model, kept)
    after = model(input_ids=read, decoder_input_ids=read.flip(0)).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def unknown_costs() -> PreTrainedTokenizerFast:
    """A character that only a longer piece knows: whether it is unknown is a matter of what that costs."""
    scores: Iterable[tuple[str, float]] = [
        ("<unk>", 0.0), ("a", -2.0), ("b", -8.0), ("c", -8.0), ("abc", -1.0), ("xa", -9.0), ("bb", -20.0),
    ]  # fmt: skip
    inner = Tokenizer(models.Unigram(list(scores), unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>", eos_token="<unk>"
    )


def test_an_unknown_character_costs_what_it_did(tmp_path: Path) -> None:
    """The least likely piece stays, though no text has it: ten nats below it is an unknown character's score."""
    unknown_costs().save_pretrained(tmp_path)
    old = load_tokenizer(tmp_path)
    were = old.convert_ids_to_tokens(old("xabc")["input_ids"])
    assert were == ["xa", "b", "c"]
    kept = kept_tokens(old, used_tokens([old("xabc abc")["input_ids"]]))
    trim_tokenizer(tmp_path, kept)
    new = load_tokenizer(tmp_path)
    assert new.convert_ids_to_tokens(new("xabc")["input_ids"]) == were
    assert "bb" in json.loads(new.backend_tokenizer.to_str())["model"]["vocab"][-1]


def test_an_end_token_that_is_the_last_of_all_still_ends_texts(tmp_path: Path) -> None:
    """What tokenizer.json puts behind a text is written there by its number."""
    vocabulary = [("<unk>", 0.0), *subwords.pieces(), ("</s>", 0.0)]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", len(vocabulary) - 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(tmp_path)
    old = load_tokenizer(tmp_path)
    kept = kept_tokens(old, used_tokens([old("the old river")["input_ids"]]))
    trim_tokenizer(tmp_path, kept)
    ids = load_tokenizer(tmp_path)("the old river")["input_ids"]
    assert ids[-1] == len(kept) - 1 < old.eos_token_id
    assert [kept[token] for token in ids] == old("the old river")["input_ids"]


def test_what_a_model_names_stays_though_it_is_rare_and_no_special_token() -> None:
    tokenizer = subwords.t5()
    start = tokenizer.convert_tokens_to_ids("▁because")
    assert start != tokenizer.unk_token_id
    config = hf.T5Config(**{**T5, "decoder_start_token_id": start})
    most = all_but_pieces("t5") + 1
    assert start not in kept_tokens(tokenizer, used_tokens([]), most)
    assert start in kept_tokens(tokenizer, used_tokens([]), most, named_tokens(config))
