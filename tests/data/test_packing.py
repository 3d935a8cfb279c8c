"""Packing: no row lost, cut or in two places; little padding; the same gradient as apart; only where rows stay unseen."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

import tiny
from stillhouse.data.encode import IGNORED, Example
from stillhouse.data.packing import packed
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import make_task


def ragged(count: int, least: int = 16, most: int = 512) -> list[Example]:
    """Log-uniform lengths; the tokens tell row and place."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        share = float(torch.rand((), generator=draw))
        length = round(math.exp(math.log(least) + share * math.log(most / least)))
        ids = [1000 * number + place for place in range(length)]
        rows.append(Example(f"k{number}", str(number), ids, ids, [0, length // 2], length))
    return rows


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tiny.save_language_model(tmp_path_factory.mktemp("packing") / "model")
    made = make_task("causal_lm", load_tokenizer(folder))
    made.folder = folder
    return made


def test_every_row_is_in_one_sequence_whole_and_in_the_order_that_is_told():
    rows = ragged(40)
    sequences, order = packed(rows)
    assert sorted(row.key for row in order) == sorted(row.key for row in rows)
    assert [i for s in sequences for i in s.input_ids] == [i for row in order for i in row.input_ids]
    assert max(len(s.input_ids) for s in sequences) == max(len(row.input_ids) for row in rows)
    assert sum(s.bytes for s in sequences) == sum(row.bytes for row in rows)


def test_no_row_predicts_the_first_token_of_the_next_and_documents_keep_their_beginnings():
    sequences, order = packed(ragged(40))
    rows = iter(order)
    for sequence in sequences:
        at = 0
        while at < len(sequence.input_ids):
            row = next(rows)
            assert sequence.labels[at] == IGNORED or len(sequence.input_ids) == len(row.input_ids)
            assert sequence.labels[at + 1 : at + len(row.labels)] == row.labels[1:]
            assert {at + start for start in row.starts} <= set(sequence.starts)
            at += len(row.input_ids)


def test_hardly_anything_is_padding():
    rows = ragged(64)
    sequences, _ = packed(rows)
    padded = len(sequences) * max(len(row.input_ids) for row in rows)
    real = sum(len(row.input_ids) for row in rows)
    assert real / padded > 0.9 and real / (64 * max(len(row.input_ids) for row in rows)) < 0.4


def test_rows_of_one_length_stay_as_they_are():
    rows = [row for row in ragged(60) if len(row.input_ids) > 100]
    rows = [Example(r.key, r.row, r.input_ids[:100], r.labels[:100], [0], 1) for r in rows]
    sequences, order = packed(rows)
    assert sequences == rows == order


def test_a_packed_row_says_what_it_says_alone(task):
    model = AutoModelForCausalLM.from_pretrained(task.folder).eval()
    rows, _ = task.encode([{"id": str(n), "where": "", **row} for n, row in enumerate(tiny.completions(8))])
    sequences, order = packed(rows)
    assert len(sequences) < len(rows)
    together = task.scores(model, task.collate(sequences))
    alone = [task.scores(model, task.collate([row])) for row in order]
    assert torch.equal(together.labels, torch.cat([one.labels for one in alone]))
    assert torch.allclose(together.hidden, torch.cat([one.hidden for one in alone]), atol=1e-5)


def test_models_that_heed_position_ids_are_packed_and_others_are_not(task):
    size = task.outcomes
    llama = AutoModelForCausalLM.from_pretrained(task.folder)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2))
    bloom = BloomForCausalLM(BloomConfig(vocab_size=size, hidden_size=16, n_layer=1, n_head=2))
    assert task.packs(llama) and task.packs(gpt2)
    assert not task.packs(bloom)  # ALiBi: it would look across the border without a word
    gpt2.train()
    task.packs(gpt2)
    assert gpt2.training
