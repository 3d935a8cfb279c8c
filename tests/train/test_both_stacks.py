"""Terms that compare layers, of encoder–decoders: each against loops over rows, layers and tokens in float64, one row at a time."""

import copy
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    LEDConfig,
    LEDForConditionalGeneration,
    LongT5Config,
    LongT5ForConditionalGeneration,
    PreTrainedModel,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import IGNORED, Example
from stillhouse.errors import RecipeError
from stillhouse.models.taps import AttentionMaps, key_value_heads, stacks_of, tapped
from stillhouse.tasks import Batch, Task, make_task
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train.features import PROJECTORS
from stillhouse.train.given import as_examples
from stillhouse.train.objective import Layers, Objective

FAMILIES = ["t5", "bart"]
ROWS = [
    {"prompt": "the old house", "completion": "red"},
    {"prompt": "a", "completion": "small quiet river near the book"},
    {"prompt": "the student reads a good book and never writes", "completion": "a bad film"},
    {"prompt": "slowly under the night", "completion": "morning always"},
]
"""Sources and targets of other lengths, so that one's mask is never right for the other."""
ENCODER = {"uniform": {1: 1, 2: 3, 3: 4}, "last": {1: 2, 2: 3, 3: 4}, "skip": {1: 1, 2: 2, 3: 3}}
DECODER = {"uniform": {1: 2, 2: 3}, "last": {1: 2, 2: 3}, "skip": {1: 1, 2: 2}}
"""What each map means for a student of 3 and 2 layers and a teacher of 4 and 3."""
STACKS = {"encoder": ENCODER, "decoder": DECODER}
HEADS = 4
TERMS = {
    "hidden": kd.hidden(),
    "hidden_cosine": kd.hidden(layers="last", distance="cosine"),
    "hidden_normalised": kd.hidden(layers="skip", distance="normalised"),
    "hidden_explicit": kd.hidden(layers={0: 1, 2: 3}),
    "embeddings": kd.embeddings(),
    "attention": kd.attention(),
    "attention_mse": kd.attention(layers="last", distance="mse"),
    "relations": kd.relations(),
    "relations_vv": kd.relations(of=["v"], heads=2, student_layer=1, teacher_layer=3),
    "gram": kd.similarity(),
    "rkd_distance": kd.similarity(by="rkd_distance"),
    "rkd_angle": kd.similarity(by="rkd_angle"),
    "cka": kd.similarity(by="cka"),
}
LIKE_WITH_LIKE = [name for name in TERMS if name not in ("hidden_explicit", "relations_vv")]
PER_TOKEN = [name for name, term in TERMS.items() if term.kind != "similarity"]


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("seq2seq", tiny.translator_tokenizer(), 32)


@pytest.fixture(scope="module")
def examples(task: Task) -> list[Example]:
    return as_examples(ROWS, task)


def pair(family: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """(student, teacher), of other widths, and of other depths in encoder and decoder."""
    return (
        tiny.translator(family, width=16, layers=3, decoder_layers=2),
        tiny.translator(family, width=32, layers=4, decoder_layers=3),
    )


def attached(term: Any, student: PreTrainedModel, teacher: PreTrainedModel, task: Task) -> Objective:
    objective = Objective([term])
    objective.attach(student, teacher, task.outcomes, 0)
    return objective


def loss_of(
    objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel, task: Task, batch: Batch
) -> Tensor:
    """What a Distiller makes of one batch."""
    assert objective.features is not None
    targets = LocalTeacher(teacher, task).signal(batch, objective.teacher_points(0.0))
    with tapped(student, objective.points(0.0)) as mine:
        scores = task.scores(student, batch)
    layers = Layers(mine, targets.features, task.layout(batch))
    return objective(scores, targets, len(scores.labels), layers=layers)[0]


@torch.no_grad()
def value_of(
    term: Any, student: PreTrainedModel, teacher: PreTrainedModel, task: Task, batch: Batch
) -> float:
    return float(loss_of(attached(term, student, teacher, task), student, teacher, task, batch))


# ── the naive reference ─────────────────────────────────────────────────────────────────────────────────────────────


def handed_on(model: PreTrainedModel, task: Task, example: Example) -> dict[str, Tensor]:
    """What a row alone leaves, by stack, part and layer: "encoder.hidden.2" [T, H], "decoder.attention.1" [h, T, T]."""
    found: dict[str, Tensor] = {}
    t5 = model.config.model_type == "t5"
    inner = model if t5 else model.model
    names = {"q": "q", "k": "k", "v": "v"} if t5 else {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
    handles = []
    for stack in STACKS:
        layers = getattr(inner, stack).block if t5 else getattr(inner, stack).layers

        def first(_: nn.Module, args: tuple[Any, ...], key: str = f"{stack}.hidden.0") -> None:
            found[key] = args[0][0]

        handles.append(layers[0].register_forward_pre_hook(first))
        for number, layer in enumerate(layers, 1):

            def after(_: nn.Module, __: Any, out: Any, key: str = f"{stack}.hidden.{number}") -> None:
                found[key] = (out[0] if isinstance(out, tuple) else out)[0]

            handles.append(layer.register_forward_hook(after))
            attention = layer.layer[0].SelfAttention if t5 else layer.self_attn
            for what, name in names.items():

                def made(_: nn.Module, __: Any, out: Tensor, key: str = f"{stack}.{what}.{number}") -> None:
                    found[key] = out[0]

                handles.append(getattr(attention, name).register_forward_hook(made))
    inputs = task.inputs(model, task.collate([example]))
    output = model(**inputs, output_attentions=True)
    for handle in handles:
        handle.remove()
    for stack, maps in (("encoder", output.encoder_attentions), ("decoder", output.decoder_attentions)):
        found |= {f"{stack}.attention.{number}": each[0] for number, each in enumerate(maps, 1)}
    return found


def double(model: PreTrainedModel) -> PreTrainedModel:
    whole = copy.deepcopy(model).double().eval()
    whole.set_attn_implementation("eager")
    return whole


def distance(by: str, one: Tensor, other: Tensor) -> Tensor:
    if by == "mse":
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)
    cosine = (one @ other) / (one.norm() * other.norm())
    return 1 - cosine if by == "cosine" else 2 - 2 * cosine


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    return sum(a * (a.log() - b) for a, b in zip(p, log_q, strict=True))


def apart(by: str, one: Tensor, other: Tensor, at: int) -> Tensor:
    """Of two maps [h, T, T], at one token, the mean over heads."""
    found = []
    for mine, theirs in zip(one, other, strict=True):
        seen = theirs[at] > 0  # of a decoder, what is not ahead
        q, p = mine[at][seen], theirs[at][seen]
        if by == "kl":
            found.append(divergence(p, q.log()))
        else:
            found.append(sum((a - b) ** 2 for a, b in zip(q, p, strict=True)))
    return sum(found) / len(found)


def related(one: Tensor, other: Tensor, heads: int, at: int) -> Tensor:
    """Of queries, keys or values [T, width] of two models, at one token, the mean over the relation heads."""
    found = []
    for head in range(heads):
        logs = []
        for side in (one, other):
            width = side.shape[1] // heads
            own = side[:, head * width : (head + 1) * width]
            logs.append(torch.stack([own[at] @ each for each in own]).div(width**0.5).log_softmax(0))
        found.append(divergence(logs[1].exp(), logs[0]))
    return sum(found) / heads


def at_tokens(
    name: str,
    stack: str,
    mine: dict[str, Tensor],
    theirs: dict[str, Tensor],
    project: Callable[[str], Tensor],
) -> list[Tensor]:
    """A term's value at each token of one row, in one stack."""
    term = TERMS[name]
    tokens = range(len(mine[f"{stack}.hidden.0"]))
    if term.kind == "relations":
        depths = (3, 4) if stack == "encoder" else (2, 3)
        own, whose = (term.student_layer or depths[0], term.teacher_layer or depths[1])
        return [
            sum(
                related(
                    mine[f"{stack}.{what}.{own}"], theirs[f"{stack}.{what}.{whose}"], term.heads or HEADS, at
                )
                for what in term.of
            )
            / len(term.of)
            for at in tokens
        ]
    wanted = {0: 0} if term.kind == "embeddings" else term.layers
    layers = STACKS[stack][wanted] if isinstance(wanted, str) else wanted
    found = []
    for at in tokens:
        values = []
        for own, whose in layers.items():
            if term.kind == "attention":
                one, other = mine[f"{stack}.attention.{own}"], theirs[f"{stack}.attention.{whose}"]
                values.append(apart(term.distance, one, other, at))
            else:
                point = f"{stack}.hidden.{own}"
                one = project(point) @ mine[point][at]
                values.append(distance(term.distance, one, theirs[f"{stack}.hidden.{whose}"][at]))
        found.append(sum(values) / len(values))
    return found


def between_rows(by: str, rows: list[Tensor]) -> Tensor:
    """What `similarity` compares of the rows' means, [B, ·]."""
    pairs = range(len(rows))
    if by == "gram":
        return torch.stack([F.normalize(torch.stack([a @ b for b in rows]), dim=0) for a in rows])
    if by == "rkd_distance":
        far = torch.stack([torch.stack([(rows[i] - rows[j]).norm() for j in pairs]) for i in pairs])
        return far / (far.sum() / (len(rows) * (len(rows) - 1)))
    return torch.stack([
        torch.stack([
            F.cosine_similarity(rows[j] - rows[i], rows[k] - rows[i], dim=0)
            for j in pairs for k in pairs if len({i, j, k}) == 3
        ])
        for i in pairs
    ])  # fmt: skip


def huber(one: Tensor, other: Tensor) -> Tensor:
    gap = (one - other).abs()
    return torch.where(gap < 1, gap**2 / 2, gap - 0.5)


def by_rows(by: str, mine: list[Tensor], theirs: list[Tensor]) -> list[Tensor]:
    """`similarity` of each row, from the rows' means."""
    if by == "cka":
        a, b = (torch.stack(rows) - torch.stack(rows).mean(0) for rows in (mine, theirs))
        k, m = a @ a.T, b @ b.T  # the linear kernels, where the package multiplies the other way round
        return [1 - (k * m).sum() / (k.norm() * m.norm())] * len(mine)
    with torch.no_grad():
        taught = between_rows(by, theirs)
    said = between_rows(by, mine)
    if by == "gram":
        return list((said - taught).square().sum(-1))
    total = huber(said, taught).sum(-1)
    return list(
        total / (len(mine) - 1) if by == "rkd_distance" else total / ((len(mine) - 1) * (len(mine) - 2))
    )


def naive(
    name: str,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    task: Task,
    examples: list[Example],
    project: Callable[[str], Tensor],
) -> Tensor:
    """½·(decoder at the token + mean of the encoder over the row's source), averaged over all tokens of all targets."""
    mine = [handed_on(student, task, one) for one in examples]
    with torch.no_grad():
        theirs = [handed_on(teacher, task, one) for one in examples]
    by_stack: dict[str, list[list[Tensor]]] = {}
    for stack, depths in (("encoder", (3, 4)), ("decoder", (2, 3))):
        if TERMS[name].kind == "similarity":
            means = [
                [row[f"{stack}.hidden.{depth}"].mean(0) for row in rows]
                for rows, depth in zip((mine, theirs), depths, strict=True)
            ]
            by_stack[stack] = [[value] for value in by_rows(TERMS[name].by, *means)]
        else:
            by_stack[stack] = [
                at_tokens(name, stack, a, b, project) for a, b in zip(mine, theirs, strict=True)
            ]
    found = []
    for row, example in enumerate(examples):
        of_source = sum(by_stack["encoder"][row]) / len(by_stack["encoder"][row])
        for at in range(example.counted):
            of_target = by_stack["decoder"][row]
            found.append((of_source + of_target[at if len(of_target) > 1 else 0]) / 2)
    return sum(found) / len(found)


# ── the value and its gradients ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "family"),
    [*product(TERMS, FAMILIES), *product(["hidden", "attention", "relations"], ["marian"])],
)
def test_a_terms_value_and_gradients_are_those_of_loops_over_rows_layers_and_real_tokens(
    name: str, family: str, task: Task, examples: list[Example]
) -> None:
    student, teacher = pair(family)
    objective = attached(TERMS[name], student, teacher, task)
    loss = loss_of(objective, student, teacher, task, task.collate(examples))
    loss.backward()

    whole = double(student)
    projectors = copy.deepcopy(objective.features.projectors).double()  # type: ignore[union-attr]
    wanted = naive(
        name, whole, double(teacher), task, examples,
        lambda point: projectors[f"0-{point.replace('.', '-')}"].weight,
    )  # fmt: skip
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert loss.item() > 1e-4
    reached = set()
    for (at, own), theirs in zip(student.named_parameters(), whole.parameters(), strict=True):
        if theirs.grad is None or not theirs.grad.any():
            assert own.grad is None or own.grad.abs().max() < 1e-6, at
            continue
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(own.grad, theirs.grad.float(), rtol=1e-2, atol=1e-3 * scale + 1e-7, msg=at)
        reached |= {stack for stack in STACKS if f"{stack}." in at}
    if name != "embeddings" or family == "bart":  # the others learn nothing of a stack before its layers
        assert reached == set(STACKS)
    for own, theirs in zip(objective.features.projectors.parameters(), projectors.parameters(), strict=True):  # type: ignore[union-attr]
        assert theirs.grad.any()
        torch.testing.assert_close(own.grad, theirs.grad.float(), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_projectors_are_one_for_each_layer_of_each_stack(family: str, task: Task) -> None:
    made = attached(TERMS["hidden"], *pair(family), task).features
    assert made is not None
    assert set(made.projectors) == {
        "0-encoder-hidden-1", "0-encoder-hidden-2", "0-encoder-hidden-3", "0-decoder-hidden-1", "0-decoder-hidden-2",
    }  # fmt: skip
    one, other = (made.projectors[f"0-{stack}-hidden-1"].weight for stack in STACKS)
    assert one.shape == (32, 16) and not torch.equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LIKE_WITH_LIKE)
def test_a_term_is_zero_for_the_same_model_and_not_where_either_stack_differs(
    name: str, family: str, task: Task, examples: list[Example]
) -> None:
    teacher = tiny.translator(family)
    batch, term = task.collate(examples), TERMS[name]
    same = copy.deepcopy(teacher)
    assert value_of(term, same, teacher, task, batch) == pytest.approx(0.0, abs=2e-6)
    for stack in STACKS:
        other = copy.deepcopy(teacher)
        with torch.no_grad():
            for parameter in _its_own(other, stack, name):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        assert value_of(term, other, teacher, task, batch) > 1e-5


def _its_own(model: PreTrainedModel, stack: str, name: str) -> Iterator[nn.Parameter]:
    """Weights of the stack's last layer.  (A decoder's changes nothing in the encoder; an encoder's is read by the decoder too.)"""
    if name == "embeddings":
        yield model.get_input_embeddings().weight
    else:
        layers = stacks_of(model)[stack]
        yield from layers[len(layers) - 1].parameters()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TERMS)
def test_more_padding_of_sources_and_of_targets_changes_nothing(
    name: str, family: str, task: Task, examples: list[Example]
) -> None:
    """On the right for all; on the left of the source where positions are relative."""
    student, teacher = pair(family)
    term, batch = TERMS[name], task.collate(examples)
    plain = value_of(term, student, teacher, task, batch)
    left = [((2, 0), 0)] if family == "t5" else []
    for source, target in [((0, 3), 0), ((0, 0), 5), ((0, 2), 4), *left]:
        more = {
            **batch,
            "input_ids": F.pad(batch["input_ids"], source, value=0),
            "attention_mask": F.pad(batch["attention_mask"], source, value=0),
            "labels": F.pad(batch["labels"], (0, target), value=IGNORED),
        }
        assert value_of(term, student, teacher, task, more) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PER_TOKEN)
def test_rows_give_together_what_they_give_apart(
    name: str, family: str, task: Task, examples: list[Example]
) -> None:
    student, teacher = pair(family)
    term = TERMS[name]
    whole = value_of(term, student, teacher, task, task.collate(examples))
    alone = [value_of(term, student, teacher, task, task.collate([one])) * one.counted for one in examples]
    assert whole == pytest.approx(sum(alone) / sum(one.counted for one in examples), rel=1e-4)


# ── attention ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_no_attention_is_dropped_from_the_maps_and_all_other_dropout_stays(
    family: str, task: Task, examples: list[Example]
) -> None:
    model, batch = tiny.translator(family), task.collate(examples)
    for config in (model.config, model.get_encoder().config, model.get_decoder().config):
        config.attention_dropout = 0.5
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float) and "Attention" in type(module).__name__:
            module.dropout = 0.5
    AttentionMaps(model).wanted(True)
    points = ["encoder.attention.1", "decoder.attention.1"]
    model.train()
    hidden = []
    for _ in range(2):
        with torch.no_grad(), tapped(model, [*points, "decoder.hidden.1"]) as caught:
            task.scores(model, batch)
        for point in points:
            sums = caught[point].sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
        hidden.append(caught["decoder.hidden.1"])
    assert not torch.equal(*hidden)
    if family == "t5":
        assert {layer.layer[0].dropout.p for layer in model.encoder.block} == {0.1}


def test_relation_heads_are_those_of_the_stack() -> None:
    model = tiny.translator("bart")
    model.config.encoder_attention_heads, model.config.decoder_attention_heads = 4, 2
    assert [key_value_heads(model, stack) for stack in STACKS] == [4, 2]
    assert [key_value_heads(tiny.translator("t5"), stack) for stack in STACKS] == [4, 4]


# ── a Distiller ─────────────────────────────────────────────────────────────────────────────────────────────────────


def made(place: Any, terms: list[Any], family: str = "t5", **changes: Any) -> Distiller:
    student, teacher = pair(family)
    return Distiller(
        model=student, teacher=teacher, objective=terms, train_dataset=ROWS * 2,
        args=tiny.arguments(place, **{"max_steps": 1, "max_grad_norm": 0, **changes}),
        processing_class=tiny.translator_tokenizer(),
    )  # fmt: skip


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_distiller_lowers_each_term_and_keeps_projectors_in_checkpoints_alone(
    family: str, tmp_path: Any
) -> None:
    terms = [kd.hidden(), kd.embeddings(), kd.attention(), kd.relations(), kd.similarity()]
    distiller = made(
        tmp_path, terms, family, max_steps=40, learning_rate=3e-3, per_device_train_batch_size=8,
        save_strategy="steps", save_steps=40, max_grad_norm=1.0,
    )  # fmt: skip
    distiller.train()
    logs = [row for row in distiller.state.log_history if "loss" in row]
    for term in terms:
        assert max(row[term.kind] for row in logs[-3:]) < 0.97 * logs[0][term.kind], term.kind
    assert (tmp_path / "checkpoint-40" / PROJECTORS).exists()
    distiller.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / PROJECTORS).exists()


@pytest.mark.parametrize("name", ["hidden", "attention", "relations"])
def test_a_terms_gradient_does_not_depend_on_how_a_step_is_accumulated(name: str, tmp_path: Any) -> None:
    found = []
    for rows, micro in ((8, 1), (2, 4)):
        distiller = made(
            tmp_path / str(rows), [kd.hard(0.5), TERMS[name]], per_device_train_batch_size=rows,
            gradient_accumulation_steps=micro, learning_rate=0.1, optim="sgd",
        )  # fmt: skip
        for module in distiller.model.modules():  # what is dropped is drawn anew for each micro-batch
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        before = torch.cat([p.detach().flatten() for p in distiller.model.parameters()])
        distiller.train()
        found.append(torch.cat([p.detach().flatten() for p in distiller.model.parameters()]) - before)
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-3


def test_terms_that_weigh_0_cost_neither_fast_attention_nor_taps_nor_projectors(tmp_path: Any) -> None:
    without = made(tmp_path, [kd.hard(0.5), kd.attention(0.0), kd.hidden(0.0)])
    for model in (without.model, without.teacher.model):  # type: ignore[union-attr]
        assert (
            model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == "sdpa"
        )
    assert not without.objective.points(0.0) and not without.objective.beside
    with_it = made(tmp_path, [kd.hard(0.5), kd.attention(1e-6)])
    for model in (with_it.model, with_it.teacher.model):  # type: ignore[union-attr]
        assert (
            model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == "eager"
        )
    assert with_it.objective.points(0.0)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_map_by_number_must_fit_both_stacks_and_says_which_it_does_not(task: Task) -> None:
    student, teacher = pair("t5")
    with pytest.raises(
        RecipeError, match="3: 3 is out of range; the student has 2 decoder layers and the teacher 3"
    ):
        attached(kd.hidden(layers={3: 3}), student, teacher, task)
    with pytest.raises(RecipeError, match=r"at least the student's 4 encoder layers, and it has 3"):
        attached(kd.hidden(layers="last"), teacher, student, task)


def test_a_student_that_leaves_layers_out_at_random_is_refused(task: Task) -> None:
    student, teacher = pair("bart")
    student.config.decoder_layerdrop = 0.1
    with pytest.raises(
        RecipeError, match=r"leaves some out at random \(decoder_layerdrop: 0.1\); set it to 0"
    ):
        attached(kd.hidden(), student, teacher, task)


def test_a_family_that_pads_its_source_inside_is_refused_in_a_sentence(
    task: Task, examples: list[Example]
) -> None:
    torch.manual_seed(0)
    config = LEDConfig(
        vocab_size=48, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, attention_window=[8], pad_token_id=0,
        eos_token_id=1, bos_token_id=None, decoder_start_token_id=1, max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
    )  # fmt: skip
    student, teacher = (LEDForConditionalGeneration(config).eval() for _ in range(2))
    with pytest.raises(RecipeError, match=r"encoder\.hidden\.1 of this family does not have one row a text"):
        value_of(kd.hidden(), student, teacher, task, task.collate(examples))


def test_maps_of_a_family_whose_attention_is_cut_up_are_refused_in_a_sentence(
    task: Task, examples: list[Example]
) -> None:
    torch.manual_seed(0)
    config = LongT5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, local_radius=2, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    student, teacher = (LongT5ForConditionalGeneration(config).eval() for _ in range(2))
    with pytest.raises(
        RecipeError, match=r"hands on no encoder\.attention\.1; use another term about layers"
    ):
        value_of(kd.attention(), student, teacher, task, task.collate(examples))
    assert value_of(kd.hidden(), student, teacher, task, task.collate(examples)) > 0


def gemma(encoder: int, decoder: int, layers: int) -> PreTrainedModel:
    """A T5Gemma whose stacks are as wide as it says, as those of 9B and 2B together."""
    sizes = {
        "vocab_size": len(tiny.translator_tokenizer()), "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": layers, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    one = T5GemmaModuleConfig(**sizes, hidden_size=encoder, head_dim=encoder // 4)
    two = T5GemmaModuleConfig(**sizes, hidden_size=decoder, head_dim=decoder // 4)
    two.cross_attention_hidden_size = encoder
    config = T5GemmaConfig(encoder=one, decoder=two, vocab_size=sizes["vocab_size"])
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    torch.manual_seed(0)
    return T5GemmaForConditionalGeneration(config)


@pytest.mark.parametrize("name", ["hidden", "embeddings", "relations"])
def test_stacks_of_unequal_width_have_projectors_of_their_own(
    name: str, task: Task, examples: list[Example]
) -> None:
    student, teacher = gemma(48, 32, 2), gemma(48, 64, 3)
    objective = attached(TERMS[name], student, teacher, task)
    loss_of(objective, student, teacher, task, task.collate(examples)).backward()
    assert objective.features is not None
    shapes = {tuple(one.shape) for one in objective.features.projectors.parameters()}
    assert shapes == (set() if name == "relations" else {(64, 32)})
    for stack in (student.get_encoder(), student.get_decoder()):
        assert any(one.grad is not None and one.grad.any() for one in stack.parameters())


def classifier(layers: int) -> PreTrainedModel:
    """A BART that chooses between two labels."""
    tokenizer = tiny.encoder_tokenizer()
    end = tokenizer.sep_token_id
    return BartForSequenceClassification(
        BartConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=end, decoder_start_token_id=end, forced_eos_token_id=None,
            id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
        )
    )  # fmt: skip


def test_layers_of_a_classifier_with_two_stacks_are_refused_in_a_sentence(tmp_path: Any) -> None:
    bert = tiny.save_classifier(tmp_path / "bert")
    own = tiny.encoder_tokenizer()
    alike = make_task("classification", own, 32, ["bad", "good"])
    for student, teacher, said in (
        (classifier(1), classifier(2), "are for task: seq2seq"),
        (alike.load(bert), classifier(2), "compare like with like"),
        (classifier(1), alike.load(bert), "compare like with like"),
    ):
        with pytest.raises(RecipeError, match=said):
            Distiller(
                model=student, teacher=teacher, objective=[kd.forward_kl(), kd.hidden()], processing_class=own,
                args=tiny.arguments(tmp_path / "out", max_steps=1), train_dataset=tiny.opinions(8),
            ).train()  # fmt: skip


def test_only_the_dropout_of_the_maps_is_switched_off() -> None:
    sizes = {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 4,
        "n_positions": 64,
        "attn_pdrop": 0.5,
        "resid_pdrop": 0.25,
    }
    for model in (GPT2LMHeadModel(GPT2Config(**sizes)), GPTBigCodeForCausalLM(GPTBigCodeConfig(**sizes))):
        AttentionMaps(model).wanted(True)
        model.train()
        with torch.no_grad(), tapped(model, ["attention.1"]) as caught:
            model(input_ids=torch.arange(3, 23).view(2, 10))
        sums = caught["attention.1"].sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
        assert model.transformer.h[0].attn.resid_dropout.p == 0.25


@pytest.mark.parametrize("term", [kd.attention(), kd.relations()], ids=["attention", "relations"])
def test_checkpointing_that_cuts_the_layers_gradients_off_is_refused(term: Any, tmp_path: Any) -> None:
    student, teacher = pair("t5")
    learning = Distiller(
        model=student, teacher=teacher, objective=[term], processing_class=tiny.translator_tokenizer(),
        args=tiny.arguments(
            tmp_path, max_steps=1, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}
        ),
        train_dataset=tiny.translations(8),
    )  # fmt: skip
    with pytest.raises(RecipeError, match="use_reentrant"):
        learning.train()
