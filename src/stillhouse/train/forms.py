"""In what form a student learns: with adapters beside its weights, with rounded weights, with more and more zeros.

Each form changes the student before training and makes it an ordinary model of its family again when it is done:

    begin     change the loaded student in place
    callback  what must happen after each step, if anything
    finish    make it ordinary: adapters added in, weights rounded for good; what else there is to keep goes into a folder

Checkpoints hold the student as it is between the two.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from ..errors import RecipeError
from ..files import atomic_folder
from ..models.products import ends_with, no_product
from ..recipe import Adapter, Quantize, Sparsity
from ..registry import require
from .sparsity import Sparsifying

INT4: Any = vars(torch)["int4"]
"""torch's own stubs do not know it."""
ADAPTER = "adapter"
"""Folder beside a trained student: its adapters in PEFT's own format."""


class Form(Protocol):
    """One of them."""

    def begin(self, model: PreTrainedModel) -> None:
        """Change the student in place.  Raises: RecipeError for one that cannot learn in this form."""
        ...

    def callback(self) -> TrainerCallback | None:
        """For the Trainer."""
        ...

    def finish(self, model: PreTrainedModel, place: Path) -> None:
        """Make the student an ordinary model again, in place."""
        ...


def forms_of(student: Any) -> list[Form]:
    """What `student:` of a recipe asks for."""
    forms: list[Form] = []
    if student.adapter is not None:
        forms.append(Adapted(student.adapter))
    if student.sparsity is not None:
        forms.append(Sparse(student.sparsity))
    if student.quantize is not None:
        forms.append(Quantized(student.quantize))
    return forms


def load_weights(model: PreTrainedModel, checkpoint: Path) -> None:
    """Put the weights of a checkpoint into a student in the same form; those that are tied are there once, and stay tied."""
    for path in sorted(checkpoint.glob("model*.safetensors")):
        model.load_state_dict(load_file(path), strict=False)


def inner_products(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Dotted name -> the matrix products within the layers: neither the head nor what a task puts behind the last layer."""
    base, head = model.base_model, model.get_output_embeddings()
    inside = {id(module) for module in base.modules()} if base is not model else None
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and (inside is None or id(module) in inside)
    }


class Adapted:
    """Small matrices, or factors, beside frozen weights; `recipe.Adapter` has the kinds and their sources."""

    def __init__(self, wanted: Adapter) -> None:
        self.wanted = wanted

    def begin(self, model: PreTrainedModel) -> None:
        """Put them in; everything else stays as it is, but for a classifier's head, which is trained whole."""
        peft = require("peft", "student.adapter")
        head = model.get_output_embeddings()
        products = inner_products(model)
        targets = self.wanted.target_modules
        chosen = list(products) if targets == "all-linear" else self._named(model, list(targets))
        if head is not None and any(model.get_submodule(name) is head for name in chosen):
            self._check_head(model)
        outside = [] if head is not None else _outside(model)
        config = _config(peft, self.wanted, target_modules=chosen, modules_to_save=outside or None)
        model.requires_grad_(False)
        peft.inject_adapter_in_model(config, model)
        self.config = config

    def callback(self) -> None:
        """Nothing between the steps."""

    def finish(self, model: PreTrainedModel, place: Path) -> None:
        """Keep the adapters in `place`/adapter, and add them into the weights."""
        peft = require("peft", "student.adapter")
        from safetensors.torch import save_file

        state = peft.get_peft_model_state_dict(model)
        with atomic_folder(place / ADAPTER) as part:
            save_file(
                {f"base_model.model.{name}": value.contiguous() for name, value in state.items()},
                part / "adapter_model.safetensors",
            )
            self.config.save_pretrained(str(part))
        for name, module in list(model.named_modules()):
            if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
                module.merge()
                _replace(model, name, module.get_base_layer())
            elif isinstance(module, peft.utils.ModulesToSaveWrapper):
                _replace(model, name, module.modules_to_save["default"])
        for attribute in ("peft_config", "active_adapter"):
            vars(model).pop(attribute, None)
        model.requires_grad_(True)

    def _named(self, model: PreTrainedModel, ends: list[str]) -> list[str]:
        """Full names of the products that the recipe names by their ends."""
        products = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        found = {end: [name for name in products if ends_with(name, end)] for end in ends}
        if missing := [end for end, names in found.items() if not names]:
            raise no_product(missing[0], products)
        return sorted({name for names in found.values() for name in names})

    def _check_head(self, model: PreTrainedModel) -> None:
        if model.config.get_text_config().tie_word_embeddings:
            raise RecipeError(
                "student.adapter.target_modules: this student's head is its embeddings, so an adapter added into one would "
                "change the other; leave the head out."
            )
        if self.wanted.dropout:
            raise RecipeError(
                "student.adapter.dropout: an adapter on the head has none, where losses are taken in chunks; set it to 0, or leave "
                "the head out."
            )
        if self.wanted.kind == "dora":
            raise RecipeError(
                "student.adapter.target_modules: DoRA on the head is not supported, where losses are taken in chunks; use "
                "kind: lora, or leave the head out."
            )


class Quantized:
    """Weights are rounded in every product and the gradient passes through (Jacob et al. 2017, arXiv:1712.05877)."""

    def __init__(self, wanted: Quantize) -> None:
        self.wanted = wanted

    def begin(self, model: PreTrainedModel) -> None:
        """torchao's fake quantisation in place of the products within the layers."""
        require("torchao", "student.quantize")
        from torchao.quantization import quantize_
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

        products = {id(module): name for name, module in inner_products(model).items()}
        size = self.wanted.group_size
        if self.wanted.weights == "int4":
            for name, module in inner_products(model).items():
                if module.in_features % size:
                    raise RecipeError(
                        f"student.quantize.group_size: {name} has {module.in_features} inputs, no multiple of {size}; choose a "
                        "smaller group_size."
                    )
            weights = IntxFakeQuantizeConfig(INT4, group_size=size, is_symmetric=True)
        else:
            weights = IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
        inputs = None
        if self.wanted.activations == "int8":
            inputs = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
        quantize_(
            model,
            QATConfig(activation_config=inputs, weight_config=weights, step="prepare"),
            filter_fn=lambda module, _: id(module) in products,
        )

    def callback(self) -> None:
        """Nothing between the steps."""

    @torch.no_grad()
    def finish(self, model: PreTrainedModel, place: Path) -> None:
        """Ordinary products with the weights that training saw: whole multiples of a scale for each row or group."""
        from torchao.quantization.qat import FakeQuantizedLinear

        for name, module in list(model.named_modules()):
            if isinstance(module, FakeQuantizedLinear):
                made = nn.Linear(
                    module.in_features, module.out_features, module.bias is not None, device="meta"
                )
                made.weight = nn.Parameter(module.weight_fake_quantizer(module.weight).detach().clone())
                made.bias = module.bias
                _replace(model, name, made)


class Sparse:
    """Zeros by a schedule; see `sparsity`."""

    def __init__(self, wanted: Sparsity) -> None:
        self.wanted = wanted

    def begin(self, model: PreTrainedModel) -> None:
        """Choose what is to become sparse."""
        self.products = inner_products(model)
        if self.wanted.pattern == "2:4":
            for name, module in self.products.items():
                if module.in_features % 4:
                    raise RecipeError(
                        f"student.sparsity.pattern: {name} has {module.in_features} inputs, no multiple of 4; use unstructured."
                    )

    def callback(self) -> TrainerCallback:
        """Prunes after each step."""
        return Sparsifying(self.wanted, self._weights)

    def finish(self, model: PreTrainedModel, place: Path) -> None:
        """It is ordinary already."""

    def _weights(self) -> Sequence[Tensor]:
        return [module.weight.detach() for module in self.products.values()]


def _config(peft: Any, wanted: Adapter, **where: Any) -> Any:
    """What PEFT calls such an adapter.

    Not AdaLoRA, whose ranks are shared out by a state that checkpoints do not hold, and not VeRA, whose matrices belong to PEFT's
    wrapper and not to the model.
    """
    match wanted.kind:
        case "ia3":
            return peft.IA3Config(
                feedforward_modules=[], **where
            )  # the outputs of each product, not its inputs
        case "loha":
            return peft.LoHaConfig(r=wanted.rank, alpha=wanted.alpha, **where)
        case "lokr":
            return peft.LoKrConfig(r=wanted.rank, alpha=wanted.alpha, **where)
    return peft.LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        use_rslora=wanted.kind == "rslora",
        use_dora=wanted.kind == "dora",
        **where,
    )


def _outside(model: PreTrainedModel) -> list[str]:
    """Names of what a task puts behind the model's layers, such as a classifier."""
    base = model.base_model
    return [
        name for name, module in model.named_children() if module is not base and list(module.parameters())
    ]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module at a dotted name."""
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, module)
