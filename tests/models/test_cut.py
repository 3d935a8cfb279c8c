"""Students cut out of their teachers, in every family that has a row in the table."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from families import FAMILIES, GROUPED, family, logits, rows
from stillhouse.errors import RecipeError
from stillhouse.models.shrink.cut import Cut, Heads, cut, skeleton_of
from stillhouse.models.shrink.depth import least_loss, mean_loss, most_alike_run, passed_by, stack_layers
from stillhouse.models.shrink.importance import choose, choose_heads, measure_importance, unmeasured

MASK = torch.ones(2, 12, dtype=torch.bool)


def probes(model):
    return [(lambda: model(**rows(model)).logits.float().logsumexp(-1).mean(), (MASK,))]


def narrower(skeleton):
    """Half of everything that the family lets go."""
    sizes = {"intermediate_size": 24}
    if not skeleton.family.fixed_width:
        sizes["hidden_size"] = 16
    if not skeleton.tied_heads:
        sizes["heads"] = 2
    return skeleton.wanted(tuple(2 for _ in skeleton.shape.layers), **sizes)


def every(skeleton, keep):
    return {stack.name: keep for stack in skeleton.family.stacks}


@pytest.mark.parametrize("name", FAMILIES)
def test_keeping_everything_changes_no_logit(name):
    model = family(name)
    skeleton = skeleton_of(model)
    same = cut(
        model, choose(unmeasured(model, skeleton), skeleton, skeleton.shape, every(skeleton, [0, 1, 2, 3]))
    )
    assert torch.equal(logits(same), logits(model))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_half_as_wide_and_deep_loads_without_us_and_has_the_foretold_size(name, tmp_path: Path):
    model = family(name)
    skeleton = skeleton_of(model)
    shape = narrower(skeleton)
    importance = measure_importance(model, skeleton, probes(model))
    student = cut(model, choose(importance, skeleton, shape, every(skeleton, [1, 3])))
    student.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(student))
    assert torch.isfinite(logits(again)).all()
    assert sum(one.numel() for one in again.parameters()) == skeleton.parameters(shape)
    assert skeleton_of(again).shape == shape, "it can be cut again, as what it is"


def chosen(model, layers, hidden, neurons, heads):
    """What stays by importance; the hidden width or the heads, where the family lets the one go without the other."""
    skeleton = skeleton_of(model)
    sizes = {"intermediate_size": neurons}
    if not skeleton.family.fixed_width:
        sizes["hidden_size"] = hidden
    if not skeleton.tied_heads:
        sizes["heads"] = heads
    shape = skeleton.wanted(tuple(len(layers) for _ in skeleton.shape.layers), **sizes)
    return choose(
        measure_importance(model, skeleton, probes(model)), skeleton, shape, every(skeleton, layers)
    )


def after(first, second):
    """Both cuts as one: what the second keeps, in the numbers of the model before the first."""
    kept = next(iter(first.layers.values()))

    def was(name):
        return re.sub(r"(?<=\.)\d+", lambda number: str(kept[int(number[0])]), name, count=1)

    neurons = {was(name): first.neurons[was(name)][which] for name, which in second.neurons.items()}
    heads = {}
    for name in {**{was(name): 0 for name in second.heads}, **first.heads}:
        mine = next((heads for new, heads in second.heads.items() if was(new) == name), None)
        old = first.heads.get(name)
        if old is None or mine is None:
            heads[name] = mine or old
        else:
            groups = [[before for group in some for before in old.groups[group]] for some in mine.groups]
            heads[name] = Heads([old.queries[query] for query in mine.queries], groups)
    hidden = None if second.hidden is None else first.hidden[second.hidden]
    layers = {stack: [kept[number] for number in numbers] for stack, numbers in second.layers.items()}
    return Cut(second.shape, layers, heads, neurons, hidden)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_that_is_cut_again_is_what_both_cuts_at_once_leave(name, tmp_path: Path):
    """By way of the disk, as a person has it; the second cut by hand, in the numbers of the first model."""
    model = family(name)
    first = chosen(model, [0, 2, 3], 24, 40, heads=4)
    cut(model, first).save_pretrained(tmp_path / "once")
    once = type(model).from_pretrained(tmp_path / "once")
    second = chosen(once, [0, 2], 16, 24, heads=2)
    cut(once, second).save_pretrained(tmp_path / "twice")
    twice = type(model).from_pretrained(tmp_path / "twice")
    torch.testing.assert_close(logits(twice), logits(cut(model, after(first, second))))
    assert not torch.allclose(logits(twice), logits(once))


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_that_do_nothing_are_found_unimportant_and_their_loss_changes_no_logit(name):
    """Heads and neurons whose way out is zero: by both measures they go first, and nobody misses them."""
    model = family(name)
    skeleton = skeleton_of(model)
    width = skeleton.head_width
    keeps_heads = skeleton.tied_heads
    with torch.no_grad():
        for key, weight in model.named_parameters():
            for stack in skeleton.family.stacks:
                if f".{stack.path}." in f".{key}" and key.endswith(f"{stack.output}.weight"):
                    weight[:, ::2] = 0
                ends = [f"{end}.weight" for end in stack.attentions.values()]
                if not keeps_heads and f".{stack.path}." in f".{key}" and key.endswith(tuple(ends)):
                    weight[:, : 2 * width] = 0
    expected = logits(model)
    sizes = {"intermediate_size": 24} if keeps_heads else {"intermediate_size": 24, "heads": 2}
    if not keeps_heads and skeleton.shape.kv_heads == 2:
        sizes["kv_heads"] = 1
    shape = skeleton.wanted(**sizes)
    for by in ("activation", "gradient"):
        importance = measure_importance(model, skeleton, probes(model), by)
        student = cut(model, choose(importance, skeleton, shape, every(skeleton, [0, 1, 2, 3])))
        torch.testing.assert_close(logits(student), expected, rtol=1e-4, atol=1e-4)


def test_a_hidden_channel_that_is_silent_everywhere_is_the_one_that_goes():
    model = family("llama")
    silent = [3, 7, 8, 30]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("embed_tokens.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight",
                              "gate_proj.weight", "up_proj.weight", "lm_head.weight")):  # fmt: skip
                weight[:, silent] = 0
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight[silent] = 0
    skeleton = skeleton_of(model)
    for by in ("activation", "gradient"):
        importance = measure_importance(model, skeleton, probes(model), by)
        kept = choose(importance, skeleton, skeleton.wanted(hidden_size=28), {"layers": [0]}).hidden
        assert kept is not None
        assert not set(kept.tolist()) & set(silent)


def test_gradient_importance_is_the_naive_first_order_change_of_the_loss():
    model = family("llama")
    skeleton = skeleton_of(model)
    found = measure_importance(model, skeleton, probes(model), "gradient").neurons["model.layers.1"]
    caught = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: caught.append(args[0])
    )
    loss = model(**rows(model)).logits.float().logsumexp(-1).mean()
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, caught[0])
    change = (caught[0].detach() * gradient).double()
    naive = [sum(abs(sum(float(change[b, t, n]) for t in range(12))) for b in range(2)) for n in range(48)]
    assert found.tolist() == pytest.approx(naive, rel=1e-4, abs=1e-9)


def test_padding_of_a_source_has_no_say_in_what_is_important_where_the_target_is_as_long():
    model = family("t5")
    skeleton = skeleton_of(model)
    ids = rows(model)["input_ids"]
    other = ids.clone()
    other[:, 8:] = 5
    source = MASK.clone()
    source[:, 8:] = False

    def seen(read):
        run = lambda: model(input_ids=read, attention_mask=source.long(), decoder_input_ids=ids).logits.sum()  # noqa: E731
        return measure_importance(model, skeleton, [(run, (MASK, source))])

    one, two = seen(ids), seen(other)
    for key, value in one.neurons.items():
        torch.testing.assert_close(value, two.neurons[key])
    for stack, value in one.layers.items():
        torch.testing.assert_close(value, two.layers[stack])
    torch.testing.assert_close(one.hidden, two.hidden)


def apart_from_its_embeddings():
    """A T5 1.1: its configuration says tied, and its files have a head of their own."""
    model = family("t5 untied")
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def test_a_head_that_is_not_the_embeddings_stays_apart_in_the_student(tmp_path):
    model = apart_from_its_embeddings()
    skeleton = skeleton_of(model)
    whole = cut(
        model, choose(unmeasured(model, skeleton), skeleton, skeleton.shape, every(skeleton, [0, 1, 2, 3]))
    )
    torch.testing.assert_close(logits(whole), logits(model))
    whole.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(type(whole).from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("name", ["t5", "t5 untied"])
def test_a_narrower_decoders_norm_makes_up_for_the_scale_only_where_there_is_one(name):
    model = family(name)
    skeleton = skeleton_of(model)
    what = choose(
        unmeasured(model, skeleton), skeleton, skeleton.wanted(hidden_size=16), every(skeleton, [0, 1, 2, 3])
    )
    old, new = (one.decoder.final_layer_norm.weight for one in (model, cut(model, what)))
    assert what.hidden is not None
    expected = old[what.hidden] * (0.5**0.5 if name == "t5" else 1.0)
    torch.testing.assert_close(new, expected)


def test_padding_has_no_say_in_what_is_important():
    model = family("llama")
    skeleton = skeleton_of(model)
    ids = rows(model)["input_ids"]
    other = ids.clone()
    other[:, 8:] = 5
    mask = MASK.clone()
    mask[:, 8:] = False

    def seen(ids):
        return measure_importance(model, skeleton, [(lambda: model(input_ids=ids).logits.sum(), (mask,))])

    one, two = seen(ids), seen(other)
    for key, value in one.neurons.items():
        torch.testing.assert_close(value, two.neurons[key])
    torch.testing.assert_close(one.hidden, two.hidden)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ── heads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_kept_heads_stay_with_the_keys_and_values_that_they_read():
    importance = torch.tensor([5.0, 0.0, 4.0, 1.0, 9.0, 2.0])  # 3 groups of 2
    assert choose_heads(importance, 3, 3, 3) == Heads([0, 2, 4], [[0], [1], [2]])
    assert choose_heads(importance, 3, 4, 2) == Heads([0, 1, 4, 5], [[0], [2]])
    assert choose_heads(importance, 3, 2, 2) == Heads([0, 4], [[0], [2]])


def test_too_few_groups_for_the_kept_heads_are_averages_of_neighbours():
    assert choose_heads(torch.ones(4), 2, 4, 1) == Heads([0, 1, 2, 3], [[0, 1]])
    model = family("llama")
    skeleton = skeleton_of(model)
    shape = skeleton.wanted(heads=4, kv_heads=1)
    student = cut(model, choose(unmeasured(model, skeleton), skeleton, shape, {"layers": [0, 1, 2, 3]}))
    mine, theirs = student.model.layers[2].self_attn, model.model.layers[2].self_attn
    torch.testing.assert_close(mine.k_proj.weight, theirs.k_proj.weight.unflatten(0, (2, 8)).mean(0))
    assert torch.equal(mine.q_proj.weight, theirs.q_proj.weight)


def test_equal_groups_are_merged_without_a_change():
    model = family("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            for part in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                part.weight[8:] = part.weight[:8]
    skeleton = skeleton_of(model)
    shape = skeleton.wanted(heads=4, kv_heads=1)
    student = cut(model, choose(unmeasured(model, skeleton), skeleton, shape, {"layers": [0, 1, 2, 3]}))
    torch.testing.assert_close(logits(student), logits(model), rtol=1e-5, atol=1e-5)


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "bart", "whisper"])
def test_a_student_of_some_layers_of_each_stack_says_what_those_layers_say(name):
    model = family(name)
    skeleton = skeleton_of(model)
    shape = replace(skeleton.shape, layers=tuple(2 for _ in skeleton.shape.layers))
    student = cut(model, Cut(shape, every(skeleton, [1, 2])))
    stacks = [stack_layers(model, stack.path) for stack in skeleton.family.stacks]
    expected = logits(student)
    for layers in stacks[:-1]:
        for number in (0, 3):
            layers[number].forward = _handing_on(layers[number])
    with passed_by(stacks[-1], [0, 3]):
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


def _handing_on(layer):
    whole = layer.forward

    def forward(hidden_states, *args, **kwargs):
        said = whole(hidden_states, *args, **kwargs)
        return (hidden_states, *said[1:]) if isinstance(said, tuple) else hidden_states

    return forward


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "bart"])
def test_the_lazy_search_for_the_cheapest_layers_finds_what_the_thorough_one_finds(name):
    model = family(name)
    layers = stack_layers(model, skeleton_of(model).family.stacks[-1].path)
    some = probes(model)
    with torch.no_grad():
        gone: list[int] = []
        for _ in range(2):
            costs = {}
            for number in set(range(4)) - set(gone):
                with passed_by(layers, [*gone, number]):
                    costs[number] = mean_loss(some)
            gone.append(min(costs, key=costs.get))
    found, losses = least_loss(layers, some, 2)
    assert found[0] == gone[0], "the first removal is exact"
    with torch.no_grad(), passed_by(layers, found):
        assert mean_loss(some) == pytest.approx(losses[-1])
    assert not any("forward" in vars(layer) for layer in layers)


def test_the_run_of_layers_that_hands_its_input_on_is_the_one_that_goes():
    model = family("llama")
    with torch.no_grad():
        for number in (1, 2):
            layer = model.model.layers[number]
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    kept, angles = most_alike_run(stack_layers(model, "layers"), probes(model), 2)
    assert kept == [0, 3]
    assert angles[1] == pytest.approx(0.0, abs=1e-3)
    assert len(angles) == 2
    assert most_alike_run(stack_layers(model, "layers"), probes(model), 4) == ([0, 1, 2, 3], [])


# ── what cannot be cut ──────────────────────────────────────────────────────────────────────────────────────────────


def test_another_family_is_told_what_is_missing():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(RecipeError, match=r"'gpt2' models can only lose whole layers.*families\.py"):
        skeleton_of(model)


def test_a_weight_that_nothing_says_how_to_cut_is_not_guessed_at():
    model = family("llama")
    model.model.layers[0].add_module("strange", torch.nn.Linear(32, 32))
    with pytest.raises(RecipeError, match="weight model.layers.0.strange.weight"):
        skeleton_of(model)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("llama", {"heads": 5}, "the teacher has only 4"),
        ("llama", {"heads": 3}, "a multiple of 2 or of 2"),
        ("llama", {"heads": 3, "kv_heads": 2}, "multiple of kv_heads"),
        ("llama", {"layers": (5,)}, "only 4 layers"),
        ("llama", {"embedding_size": 16}, "no projection behind its embeddings"),
        ("bert", {"hidden_size": 16, "embedding_size": 24}, "nothing can be gained"),
        ("llama", {"hidden_size": 30}, "30 is none of 4"),
        ("gemma2", {"hidden_size": 16}, "square root of the hidden width"),
        ("bert", {"hidden_size": 20}, "multiple of 8"),
        ("electra", {"hidden_size": 16, "embedding_size": 16}, "only 12"),
        ("electra", {"hidden_size": 8, "embedding_size": 8}, "no projection between"),
        ("t5", {"layers": (4, 6)}, "only 4 layers in its decoder"),
    ],
)
def test_shapes_that_cannot_be_are_refused_by_the_name_of_the_field(name, sizes, message):
    with pytest.raises(RecipeError, match=message):
        skeleton_of(family(name)).wanted(**sizes)


def test_a_wide_head_is_kept_where_the_configuration_does_not_say_how_wide_it_is():
    """Without head_dim in the file, hidden ÷ heads of the new shape would be another width."""
    config = LlamaConfig(**GROUPED)
    model = LlamaForCausalLM(config).eval()
    skeleton = skeleton_of(model)
    student = cut(
        model,
        choose(
            unmeasured(model, skeleton), skeleton, skeleton.wanted(hidden_size=12), {"layers": [0, 1, 2, 3]}
        ),
    )
    assert student.model.layers[0].self_attn.q_proj.weight.shape == (32, 12)
