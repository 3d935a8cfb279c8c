"""What an adapter names must be in the student, which its files tell before it is loaded."""

from pathlib import Path

import pytest
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from families import FAMILIES, family
from stillhouse.errors import RecipeError
from stillhouse.models.products import check_targets


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_training_would_find_is_never_refused_before_it(
    name: str, headless: bool, tmp_path: Path
) -> None:
    model = family(name)
    (model.base_model if headless else model).save_pretrained(tmp_path)
    products = [one for one, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert products
    for product in products:
        check_targets([product, product.rpartition(".")[2]], tmp_path)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("llama", "q_prj"), ("llama", "query"), ("llama", "mlp.q_proj"), ("llama", "proj"), ("llama", "norm"),
        ("bert", "q_proj"), ("distilbert", "query"), ("t5", "q_proj"), ("bart", "o_proj"),
    ],
)  # fmt: skip
def test_a_name_that_no_product_has_is_refused_with_those_there_are(
    name: str, wrong: str, tmp_path: Path
) -> None:
    family(name).save_pretrained(tmp_path)
    with pytest.raises(
        RecipeError, match=rf"target_modules: the student has no product '{wrong}'; it has \w+"
    ):
        check_targets([wrong], tmp_path)


def test_a_layer_that_only_a_deeper_student_has_is_let_through(tmp_path: Path) -> None:
    family("llama").save_pretrained(tmp_path)
    check_targets(["layers.11.self_attn.q_proj"], tmp_path)


def test_a_family_whose_files_may_call_things_otherwise_is_left_to_training(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    check_targets(["anything"], tmp_path)
