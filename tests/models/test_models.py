"""Students made from teachers, and what is read from inside a model."""

from itertools import pairwise

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import tiny
from stillhouse.errors import RecipeError, TeacherError
from stillhouse.models.heads import hidden_at_head
from stillhouse.models.load import load_model, load_tokenizer, parameters, same_tokenizer
from stillhouse.models.shrink.cut import every_nth, keep_layers
from stillhouse.models.shrink.depth import most_influential
from stillhouse.models.shrink.fresh import changed_config, from_config, project_embeddings
from stillhouse.models.taps import block_influence, layers_of

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
KINDS = ["full_attention", "sliding_attention"]
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, layer_types=KINDS * 3)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **SMALL, head_dim=8, sliding_window=4, layer_types=KINDS * 3, attn_implementation="eager"
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=96, n_embd=32, n_layer=6, n_head=4, n_positions=64, initializer_range=0.2)
    ),
    "bert": lambda: BertForSequenceClassification(
        BertConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}, num_labels=3)
    ),
}
IDS = torch.randint(1, 96, (2, 14), generator=torch.Generator().manual_seed(0))


def family(name: str):
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


# ── keep_layers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_keeping_all_layers_changes_no_logit(name, dtype, tmp_path):
    family(name).save_pretrained(tmp_path)
    auto = "AutoModelForSequenceClassification" if name == "bert" else "AutoModelForCausalLM"
    changes = {"attn_implementation": "eager"} if name == "gemma2" else {}
    model = load_model(tmp_path, auto, dtype, **changes)
    same = keep_layers(model, list(range(6)))
    assert same.dtype == dtype
    assert torch.equal(logits(model), logits(same))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_kept_layers_are_copied_exactly_with_their_kind_of_attention_and_the_rest_is_untouched(name):
    model = family(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    student = keep_layers(model, [0, 3, 5])
    (where, theirs), (_, ours) = layers_of(model), layers_of(student)
    assert len(ours) == student.config.num_hidden_layers == 3
    for new, old in enumerate([0, 3, 5]):
        mine, given = ours[new].state_dict(), theirs[old].state_dict()
        assert all(torch.equal(mine[key], given[key]) for key in given)
        assert mine.keys() == given.keys()
    for key, value in student.state_dict().items():
        if not key.startswith(where):
            assert torch.equal(value, before[key])
    if name in ("qwen2", "gemma2"):
        assert student.config.layer_types == [KINDS[0], KINDS[1], KINDS[1]]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(layers_of(model)[1]) == model.config.num_hidden_layers == 6


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2"])
def test_a_student_of_some_layers_says_what_those_layers_of_the_teacher_say(name):
    model = family(name)
    student = keep_layers(model, [1, 2, 4])
    _, layers = layers_of(model)
    for number in (0, 3, 5):  # passed by
        layers[number].forward = lambda hidden_states, *args, **kwargs: hidden_states
    torch.testing.assert_close(logits(student), logits(model), rtol=1e-5, atol=1e-5)


def test_a_student_of_some_layers_generates_with_its_cache_as_without(tmp_path):
    student = keep_layers(family("gemma2"), [0, 3, 5])
    cached, plain = (
        student.generate(IDS[:1], max_new_tokens=12, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_a_student_does_not_share_memory_with_its_teacher():
    model = family("llama")
    student = keep_layers(model, [0, 1])
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(parameter.data_ptr() in theirs for parameter in student.parameters())


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(RecipeError, match="layers 0 to 5, no 6"):
        keep_layers(family("llama"), [0, 6])


@pytest.mark.parametrize("have", range(1, 41))
def test_every_nth_keeps_that_many_different_layers_evenly_with_both_ends(have):
    for keep in range(1, have + 1):
        found = every_nth(have, keep)
        assert len(set(found)) == keep
        assert found == sorted(found)
        assert found[0] == 0
        assert keep == 1 or found[-1] == have - 1
        gaps = [b - a for a, b in pairwise(found)]
        assert not gaps or max(gaps) - min(gaps) <= 1


# ── block influence ─────────────────────────────────────────────────────────────────────────────────────────────────


def naive_influence(model, batches) -> list[float]:
    """From the hidden states that transformers itself returns, one position at a time; all but the last layer."""
    turned = [0.0] * 5
    count = 0
    for inputs, mask in batches:
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        for row, column in mask.nonzero().tolist():
            count += 1
            for layer in range(5):  # transformers normalises the last one
                a, b = states[layer][row, column].double(), states[layer + 1][row, column].double()
                turned[layer] += 1 - float(a @ b / (a.norm() * b.norm()))
    return [value / count for value in turned]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_block_influence_is_the_naive_one_over_the_counted_positions_of_all_batches(name):
    model = family(name)
    batches = []
    for seed, length in ((1, 9), (2, 5)):
        g = torch.Generator().manual_seed(seed)
        batches.append(
            (
                {"input_ids": torch.randint(1, 96, (3, length), generator=g)},
                torch.rand(3, length, generator=g) > 0.4,
            )
        )
    found = block_influence(model, iter(batches))
    assert found[:5].tolist() == pytest.approx(naive_influence(model, batches), abs=1e-5)
    assert found[5] > 0


def test_a_layer_that_passes_its_input_on_has_no_influence_and_is_not_kept():
    model = family("llama")
    with torch.no_grad():
        for part in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
            part.weight.zero_()
    found = block_influence(model, iter([({"input_ids": IDS}, torch.ones_like(IDS, dtype=torch.bool))]))
    assert found[2].item() == pytest.approx(0.0, abs=1e-6)
    assert (found[[0, 1, 3, 4, 5]] > 1e-3).all()
    assert most_influential(found, 5) == [0, 1, 3, 4, 5]


def test_no_hook_is_left_behind():
    model = family("llama")
    block_influence(model, iter([({"input_ids": IDS}, torch.ones_like(IDS, dtype=torch.bool))]))
    with pytest.raises(ZeroDivisionError), hidden_at_head(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert logits(model).shape == (2, 14, 96)


# ── from_config and embeddings ──────────────────────────────────────────────────────────────────────────────────────


def test_a_random_student_follows_from_its_seed_and_leaves_the_global_generator_alone():
    config = LlamaConfig(**SMALL)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = from_config(config, "AutoModelForCausalLM", 1)
    assert torch.equal(torch.rand(3), expected)
    again, other = (
        from_config(config, "AutoModelForCausalLM", 1),
        from_config(config, "AutoModelForCausalLM", 2),
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_field_that_the_family_does_not_have_is_refused_with_a_suggestion():
    with pytest.raises(RecipeError, match="hidden_size"):
        changed_config(LlamaConfig(**SMALL), {"hiden_size": 8})
    changed = changed_config(LlamaConfig(**SMALL), {"hidden_size": 8})
    assert (changed.hidden_size, changed.num_hidden_layers) == (8, 6)


def distances(embedding: torch.Tensor) -> torch.Tensor:
    return torch.pdist(embedding.double())


def test_projected_embeddings_keep_all_distances_at_full_width_up_to_one_factor():
    teacher, student = family("llama"), from_config(LlamaConfig(**SMALL), "AutoModelForCausalLM", 3)
    spread = student.get_input_embeddings().weight.std().item()
    project_embeddings(student, teacher)
    mine = student.get_input_embeddings().weight.detach()
    ratio = distances(mine) / distances(teacher.get_input_embeddings().weight.detach())
    assert ratio.std() / ratio.mean() < 1e-5
    assert mine.std().item() == pytest.approx(spread, rel=1e-3)


def test_a_narrower_projection_keeps_distances_better_than_cutting_columns_off():
    teacher = family("llama")
    with torch.no_grad():  # most of it lives in a few directions that are no columns
        basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0]
        scales = torch.tensor([4.0] * 8 + [0.3] * 24)
        weight = teacher.get_input_embeddings().weight
        weight.copy_((torch.randn(96, 32, generator=torch.Generator().manual_seed(2)) * scales) @ basis)
    student = from_config(LlamaConfig(**{**SMALL, "hidden_size": 16}), "AutoModelForCausalLM", 3)
    project_embeddings(student, teacher)
    whole = distances(weight.detach())

    def correlation(other: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([whole, distances(other.detach())]))[0, 1])

    assert correlation(student.get_input_embeddings().weight) > 0.97 > correlation(weight[:, :16])


def test_embeddings_that_do_not_fit_are_refused():
    teacher = family("llama")
    for change, reason in (({"hidden_size": 64}, "wider"), ({"vocab_size": 97}, "vocabularies differ")):
        student = from_config(LlamaConfig(**{**SMALL, **change}), "AutoModelForCausalLM", 0)
        with pytest.raises(RecipeError, match=reason):
            project_embeddings(student, teacher)


# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_width_is_not_taken_for_an_equal_tokenizer(tmp_path):
    folder = tiny.save_language_model(tmp_path / "one", layers=1)
    one, other = load_tokenizer(folder), load_tokenizer(folder)
    assert same_tokenizer(one, other) is None
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert '"A": ' in text
    first, second = one.convert_tokens_to_ids("A"), one.convert_tokens_to_ids("B")
    swapped = text.replace(f'"A": {first},', '"A": -1,').replace(f'"B": {second},', f'"B": {first},')
    (folder / "tokenizer.json").write_text(swapped.replace('"A": -1,', f'"A": {second},'), encoding="utf-8")
    changed = load_tokenizer(folder)
    assert len(changed) == len(one)
    assert "2 of" in (same_tokenizer(one, changed) or "")
    other.eos_token = "<|im_start|>"
    assert "end token" in (same_tokenizer(one, other) or "")


def test_tied_weights_are_counted_once_and_pickles_are_not_loaded(tmp_path):
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "tie_word_embeddings": True}))
    assert parameters(model) == sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert parameters(family("llama")) == parameters(model) + 96 * 32
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(TeacherError, match="no AutoModelForCausalLM can be loaded"):
        load_model(tmp_path, "AutoModelForCausalLM")
