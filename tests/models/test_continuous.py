"""Continuous batches write what one prompt at a time writes, and never more or less."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, MistralForCausalLM

from stillhouse.models.continuous import Sampling, chosen, refillable, write_all
from tiny import save_language_model

VOCABULARY = 400


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    found = AutoModelForCausalLM.from_pretrained(save_language_model(tmp_path_factory.mktemp("m")))
    return found.eval().double()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(2, VOCABULARY, draw.integers(1, 40)).tolist() for _ in range(count)]


def ends_of(model, some, new=24) -> list[int]:
    """Tokens that come up early in some answers and late in others, so that lengths are mixed."""
    alone = [one_at_a_time(model, prompt, [], new) for prompt in some]
    return sorted({answer[(5 * number) % new] for number, answer in enumerate(alone)})[:6]


@torch.no_grad()
def one_at_a_time(model, prompt, ends, new) -> list[int]:
    """The naive reference: no cache, no batch, no padding."""
    ids = list(prompt)
    while len(ids) < len(prompt) + new:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, :VOCABULARY]
        ids.append(int(logits.argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def written(model, some, sampling, **more) -> dict[int, list[int]]:
    settings = {"ends": [0], "vocabulary": VOCABULARY, "seeds": range(len(some)), "slots": 4, **more}
    found = list(write_all(model, some, sampling, **settings))
    assert len({number for number, _ in found}) == len(found), "an answer came twice"
    return dict(found)


@pytest.fixture(scope="module")
def alone(model):
    """(ends, answers) of one prompt at a time."""
    ends = ends_of(model, prompts(17))
    return ends, [one_at_a_time(model, prompt, ends, 24) for prompt in prompts(17)]


@pytest.mark.parametrize("slots", [1, 3, 8, 64])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(model, alone, slots):
    ends, alone = alone
    found = written(model, prompts(17), Sampling(24), ends=ends, slots=slots)
    assert [found[number] for number in range(17)] == alone
    assert len({len(answer) for answer in alone}) > 4, "answers of one length show nothing"


def test_what_is_drawn_follows_from_the_seed_of_the_row_and_not_from_its_neighbours(model):
    some, sampling = prompts(11, seed=1), Sampling(12, temperature=1.3, top_p=0.9)
    whole = written(model, some, sampling)
    turned = written(model, some[::-1], sampling, seeds=range(10, -1, -1), slots=3)
    assert [whole[number] for number in range(11)] == [turned[10 - number] for number in range(11)]
    other = written(model, some, sampling, seeds=range(100, 111))
    assert sum(whole[number] != other[number] for number in whole) > 5


def test_one_at_a_time_an_answer_is_the_same_among_others_to_the_last_bit_in_bfloat16_too(model):
    """With several in a batch it need not be: the last bits there depend on the rows that share it."""
    rough = copy.deepcopy(model).bfloat16()
    some, sampling = prompts(12, seed=2), Sampling(30, temperature=1.0)
    whole = written(rough, some, sampling, slots=1)
    half = written(rough, some[::2], sampling, seeds=range(0, 12, 2), slots=1)
    assert [half[number] for number in range(6)] == [whole[number] for number in range(0, 12, 2)]


def test_no_row_of_the_head_beyond_the_vocabulary_is_chosen(model):
    for temperature in (0.0, 5.0):
        found = written(model, prompts(8), Sampling(20, temperature), vocabulary=7, ends=[])
        assert max(token for answer in found.values() for token in answer) < 7
        assert {len(answer) for answer in found.values()} == {20}


def test_draws_have_the_shares_of_the_distribution():
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0]]).repeat(40_000, 1)
    uniform = (np.arange(40_000) + 0.5) / 40_000
    for temperature, top_p in ((1.0, 1.0), (2.0, 1.0), (1.0, 0.7)):
        drawn = chosen(logits, Sampling(1, temperature, top_p), uniform)
        shares = (logits[0] / temperature).double().softmax(-1).numpy()
        if top_p < 1:
            shares = np.where([0, 0, 1, 0] if shares[2] >= top_p else [1, 0, 1, 0], shares, 0)
            shares = shares / shares.sum()
        assert np.bincount(drawn, minlength=4) / 40_000 == pytest.approx(shares, abs=1e-3)


def test_a_prompt_longer_than_the_model_can_read_keeps_its_end(model):
    long = prompts(1)[0] * 300
    assert (
        written(model, [long[:3000]], Sampling(16))[0]
        == written(model, [long[:3000][-240:]], Sampling(16))[0]
    )


@pytest.fixture(scope="module")
def sliding():
    """A model whose cache cannot be refilled."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8, initializer_range=0.2,
    )  # fmt: skip
    found = MistralForCausalLM(config).eval().double()
    found.generation_config = GenerationConfig()
    assert not refillable(found)
    return found


def test_a_model_with_another_kind_of_cache_is_written_in_fixed_batches_with_the_same_texts(sliding):
    some = prompts(7)
    ends = ends_of(sliding, some, 12)
    found = written(sliding, some, Sampling(12), ends=ends)
    assert [found[n] for n in range(7)] == [one_at_a_time(sliding, prompt, ends, 12) for prompt in some]


def test_in_fixed_batches_too_a_row_draws_by_its_own_seed_and_from_the_vocabulary(sliding):
    """A part of the rows, or the rest after a stop, lies in other batches, and must come out the same."""
    some, sampling = prompts(11, seed=1), Sampling(12, temperature=1.3, top_p=0.9)
    whole = written(sliding, some, sampling)
    for slots in (1, 3):
        half = written(sliding, some[::2], sampling, seeds=range(0, 11, 2), slots=slots)
        assert [half[number] for number in range(6)] == [whole[number] for number in range(0, 11, 2)]
    other = written(sliding, some, sampling, seeds=range(100, 111))
    assert sum(whole[number] != other[number] for number in whole) > 5
    few = written(sliding, some, Sampling(12, temperature=5.0), vocabulary=7, ends=[])
    assert max(token for answer in few.values() for token in answer) < 7


def test_no_prompts_are_no_answers(model):
    assert written(model, [], Sampling(4)) == {}
