"""A target becomes a shape that meets it, by arithmetic that agrees with real models."""

from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

import tiny
from families import FAMILIES, family, logits, rows
from stillhouse.errors import RecipeError
from stillhouse.measure import middle
from stillhouse.models.described import skeleton_in
from stillhouse.models.shrink.cut import cut, skeleton_of
from stillhouse.models.shrink.factorise import factorise_embeddings
from stillhouse.models.shrink.importance import choose, unmeasured
from stillhouse.models.shrink.pace import shape_by_measure
from stillhouse.models.shrink.shapes import least, shape_for
from stillhouse.models.shrink.skeleton import Skeleton
from stillhouse.recipe import parse_recipe
from typed import stillhouse, write_recipe

SMOLLM2: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "hidden_size": 576, "head_dim": 64,
}  # fmt: skip
LAYER = {
    "self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576), "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576), "mlp.down_proj": (576, 1536),
    "input_layernorm": (576,), "post_attention_layernorm": (576,),
}  # fmt: skip


def smollm2() -> Skeleton:
    tensors = {f"model.layers.{n}.{name}.weight": shape for n in range(30) for name, shape in LAYER.items()}
    return Skeleton.of(
        SMOLLM2, {**tensors, "model.embed_tokens.weight": (49152, 576), "model.norm.weight": (576,)}
    )


def test_the_skeleton_counts_what_the_real_model_has() -> None:
    assert smollm2().parameters(smollm2().shape) == 134_515_008


@pytest.mark.parametrize("target", [10e6, 20e6, 40e6, 67e6, 100e6, 134e6])
def test_parameters_are_met_within_5_percent_and_never_exceeded(target: float) -> None:
    skeleton = smollm2()
    shapes = shape_for(skeleton, target, skeleton.parameters, {}, "that", 4)
    assert len(shapes) == len({(one.layers, one.hidden_size) for one in shapes}) > 1
    for shape in shapes:
        assert 0.95 * target <= skeleton.parameters(shape) <= target
        assert shape.heads % shape.kv_heads == 0
        sizes = {"hidden_size": shape.hidden_size, "num_attention_heads": shape.heads}
        LlamaConfig(**{**SMOLLM2, **sizes, "num_key_value_heads": shape.kv_heads}).validate()


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("gemma")])
def test_a_student_of_the_chosen_shape_really_has_that_size(name: str) -> None:
    model = family(name)
    skeleton = skeleton_of(model)
    target = 0.5 * skeleton.parameters(skeleton.shape)
    shape = shape_for(skeleton, target, skeleton.parameters, {}, "half")[0]
    layers = {
        stack.name: list(range(n)) for stack, n in zip(skeleton.family.stacks, shape.layers, strict=True)
    }
    student = cut(model, choose(unmeasured(model, skeleton), skeleton, shape, layers))
    assert 0.95 * target <= sum(one.numel() for one in student.parameters()) <= target
    student.config.validate()  # or it could not be saved


def test_widths_follow_heads_that_the_recipe_fixes_where_transformers_wants_a_multiple() -> None:
    skeleton = smollm2()
    for shape in shape_for(skeleton, 40e6, skeleton.parameters, {"heads": 9, "kv_heads": 3}, "40M", 4):
        assert (shape.heads, shape.kv_heads, shape.hidden_size % 9) == (9, 3, 0)


def test_what_the_recipe_fixes_stays_fixed() -> None:
    skeleton = smollm2()
    fixed = {"hidden_size": 576, "heads": 9, "kv_heads": 3, "layers": (15,)}
    shape = shape_for(skeleton, 70e6, skeleton.parameters, fixed, "70M")[0]
    assert (shape.hidden_size, shape.heads, shape.kv_heads, shape.layers) == (576, 9, 3, (15,))
    assert skeleton.parameters(shape) == pytest.approx(70e6, rel=0.05)


def test_targets_that_cannot_be_met_name_the_nearest_that_can() -> None:
    skeleton = smollm2()
    with pytest.raises(
        RecipeError, match="no shape of this teacher meets 100K; the nearest has .*vocabulary: data"
    ):
        shape_for(skeleton, 1e5, skeleton.parameters, {}, "100K")
    with pytest.raises(RecipeError, match="more than the teacher has"):
        shape_for(skeleton, 1e9, skeleton.parameters, {}, "1B")


@pytest.mark.parametrize("wanted", [1.5, 4.0])
@pytest.mark.parametrize("parts", [(1.0, 0.0, 0.0), (1.0, 0.1, 0.05), (0.5, 0.5, 0.0), (0.3, 0.6, 0.05)])
@pytest.mark.parametrize("size", ["large", "tiny"])
def test_a_speed_is_met_within_5_percent_whatever_seconds_are_made_of(
    size: str, parts: tuple[float, float, float], wanted: float, tmp_path: Path
) -> None:
    """Products, a cost of each layer that also grows a little with its width, and the rest; also in a tiny model."""
    skeleton = skeleton_in(tiny.save_language_model(tmp_path, layers=8)) if size == "tiny" else smollm2()
    a, b, c = parts

    def work(shape: Any) -> float:
        return float(skeleton.work(shape, True))

    def seconds(shape: Any) -> float:
        wide, deep = (
            shape.hidden_size / skeleton.shape.hidden_size,
            shape.layers[0] / skeleton.shape.layers[0],
        )
        return a * work(shape) / work(skeleton.shape) + b * deep * (0.9 + 0.1 * wide) + c

    tried = []

    def measure(shape: Any) -> float:
        tried.append(shape)
        return seconds(skeleton.shape) / seconds(shape)

    shape, reached = shape_by_measure(skeleton, wanted, work, measure, {}, "so fast")
    assert reached == pytest.approx(measure(shape))
    assert wanted <= reached <= wanted / 0.95
    assert len(tried) <= 9


def test_a_speed_that_no_shape_reaches_is_refused_with_what_can_be_had() -> None:
    skeleton = smollm2()
    with pytest.raises(
        RecipeError, match=r"9x cannot be had on this machine; the smallest shape .* 2\.50 times"
    ):
        shape_by_measure(
            skeleton,
            9.0,
            lambda shape: float(skeleton.work(shape, True)),
            lambda shape: 1.0 if shape == skeleton.shape else 2.5,
            {},
            "9x",
        )


def test_the_middle_of_many_holds_the_median_in_95_of_100_cases() -> None:
    import random

    draw = random.Random(0)
    for count in (7, 15, 40):
        held = 0
        for _ in range(1000):
            low, high = middle([draw.lognormvariate(0.0, 1.0) for _ in range(count)])
            held += low <= 1.0 <= high
        assert held >= 930
    assert middle([3.0, 1.0, 2.0]) == (1.0, 3.0)


# ── embeddings ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("own", [12, 32])
def test_embeddings_of_few_directions_are_factorised_without_a_change(own: int) -> None:
    """Twice: with a projection that is there already, and without one."""
    from transformers import ElectraConfig, ElectraForSequenceClassification

    from families import PLAIN

    torch.manual_seed(0)
    model = ElectraForSequenceClassification(ElectraConfig(**PLAIN, embedding_size=own)).eval()
    directions = torch.randn(5, own)
    with torch.no_grad():
        for name in ("word", "position", "token_type"):
            table = getattr(model.electra.embeddings, f"{name}_embeddings")
            table.weight.copy_(torch.randn(table.weight.shape[0], 5) @ directions)
        model.electra.embeddings.LayerNorm.weight.uniform_(0.5, 2.0)
        model.electra.embeddings.LayerNorm.bias.normal_()
    skeleton = skeleton_of(model)
    made = factorise_embeddings(model, 6)
    assert made.electra.embeddings.word_embeddings.weight.shape == (96, 6)
    torch.testing.assert_close(logits(made), logits(model), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in made.parameters()) == skeleton.parameters(skeleton.wanted(embedding_size=6))
    assert not torch.allclose(logits(factorise_embeddings(model, 4)), logits(model), atol=1e-3)


def test_a_family_without_a_projection_says_so() -> None:
    with pytest.raises(RecipeError, match="no projection behind its embeddings"):
        factorise_embeddings(family("roberta"), 8)


def test_a_bert_with_narrower_embeddings_is_an_electra_whose_layers_read_the_same(tmp_path: Path) -> None:
    """Embeddings of few directions, so that nothing is lost; the foretold size; loads without us."""
    model = family("bert")
    directions = torch.randn(5, 32)
    with torch.no_grad():
        for name in ("word", "position", "token_type"):
            table = getattr(model.bert.embeddings, f"{name}_embeddings")
            table.weight.copy_(torch.randn(table.weight.shape[0], 5) @ directions)
        model.bert.embeddings.LayerNorm.weight.uniform_(0.5, 2.0)
        model.bert.embeddings.LayerNorm.bias.normal_()
    made = factorise_embeddings(model, 6)
    made.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        before, after = model.bert(**rows(model))[0], again.electra(**rows(model))[0]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert torch.equal(again.classifier.out_proj.weight, model.classifier.weight)
    skeleton = skeleton_of(model)
    assert sum(p.numel() for p in again.parameters()) == skeleton.parameters(
        skeleton.wanted(embedding_size=6)
    )
    assert skeleton_of(again).shape == skeleton.wanted(embedding_size=6), "it can be cut again"


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"target": {"parameters": "1K"}}, "no shape of this teacher meets parameters: 1K"),
        ({"target": {"bytes": "40MB"}}, "more than the teacher has"),
        ({"target": {"memory": "10GB"}}, "more than the teacher has"),
        ({"target": {"parameters": "many"}}, "a number with a unit such as 20M"),
        ({"target": {"tokens_per_second": "fast"}}, "a factor above 1 such as 2x"),
        (
            {"target": {"tokens_per_second": "100000x"}},
            "no shape of this teacher is 100000x as fast, for the smallest one does",
        ),
        ({"target": {"parameters": "20K", "bytes": "1MB"}}, "exactly one of"),
        ({"from_teacher": {"heads": 9}}, "from_teacher.heads: the teacher has only 4"),
        ({"from_teacher": {"layers": 9}}, "only 4 layers"),
        ({"from_teacher": {"layers": 2}, "search": {}}, "give target"),
        ({"target": {"parameters": "20K"}, "model": "x"}, "target chooses what to keep of the teacher"),
        ({"from_teacher": {}, "adapter": {}, "quantize": {}}, "remove one"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence_before_any_model_is_loaded(
    student: dict[str, Any], message: str, tmp_path: Path
) -> None:
    said = stillhouse(
        "validate", write_recipe(tmp_path / "r.yaml", tiny.language_recipe(tmp_path, student=student))
    )
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_a_family_that_can_only_lose_layers_is_named_when_more_is_asked(tmp_path: Path) -> None:
    import json

    values = tiny.language_recipe(tmp_path, student={"from_teacher": {"heads": 2}})
    config = tmp_path / "teacher" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gpt2"}))
    said = stillhouse("validate", write_recipe(tmp_path / "r.yaml", values))
    assert said.code == 2
    assert "'gpt2' models can only lose whole layers" in " ".join(said.err.split())


@pytest.mark.parametrize("name", FAMILIES)
def test_no_shape_does_less_arithmetic_than_the_bound_on_speed_takes_for_the_least(name: str) -> None:
    """Against every shape of the family that `wanted` allows, one by one; and what is fixed stays so."""
    skeleton = skeleton_of(family(name))
    own = skeleton.shape

    def works(**fixed: Any) -> list[int]:
        found = []
        for layers, heads, hidden in product(
            range(1, own.layers[0] + 1), range(1, own.heads + 1), (4, 8, 16, 32)
        ):
            sizes = {
                "layers": (layers,) * len(own.layers),
                "heads": heads,
                "hidden_size": hidden,
                "intermediate_size": 4,
            }
            with suppress(RecipeError):
                found.append(skeleton.work(skeleton.wanted(**{**sizes, **fixed}), True))
        return found

    for fixed in ({}, {"layers": own.layers}):
        found = least(skeleton, lambda shape: float(skeleton.work(shape, True)), fixed)
        assert 0 < found <= min(works(**fixed))
    assert least(skeleton, lambda shape: float(skeleton.work(shape, True)), {}) < skeleton.work(own, True) / 2


def test_a_factor_that_a_clock_may_tell_is_left_to_it(tmp_path: Path) -> None:
    for factor, code in (("2x", 0), ("20x", 0), ("5000x", 2)):
        values = tiny.language_recipe(tmp_path, student={"target": {"tokens_per_second": factor}})
        assert stillhouse("validate", write_recipe(tmp_path / "r.yaml", values)).code == code


@pytest.mark.parametrize(("text", "number"), [("20M", 20e6), ("7B", 7e9), ("1.5G", 1.5e9), (123456, 123456)])
def test_amounts_are_read_as_people_write_them(text: Any, number: float, tmp_path: Path) -> None:
    recipe = parse_recipe(tiny.language_recipe(tmp_path, student={"target": {"parameters": text}}))
    assert recipe.student.target is not None
    assert recipe.student.target.named == ("parameters", number)
    recipe = parse_recipe(tiny.language_recipe(tmp_path, student={"target": {"bytes": "40MB"}}))
    assert recipe.student.target is not None
    assert recipe.student.target.named == ("bytes", 40e6)
