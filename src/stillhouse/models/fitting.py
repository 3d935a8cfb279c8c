"""Whether a model's folder holds what a recipe's task needs, by its files' names and headers.  No weights are read, and no torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError, TeacherError
from ..recipe import Recipe, living
from ..recipe.generate import Answers
from .described import cut_short, json_in, model_config, tensors_in
from .insides import ABOUT_LAYERS, layers_fault, target_fault
from .shrink.requests import check_tokenizer

TOKENIZERS = {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json"}
OTHER_HEAD = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MaskedLM|MultipleChoice)$"
)
MASKED_HEAD = re.compile(r"(ForMaskedLM|(?<!Electra)ForPreTraining|WithLMHeadModel)$")
"""Classes whose weights have a head for hidden tokens; ELECTRA's ForPreTraining is a discriminator."""
AFTER_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "roberta-prelayernorm",
)
"""Families that count positions from their padding token's id on, so that they have fewer than they have rows for."""
POSITIONS = re.compile(r"(^|[._])(position_embeddings|embed_positions|wpe)\.weight$")
"""A table of positions, by the names that families give it: beyond its end torch has an error of its own."""
CLASSIFIER = "SequenceClassification"


def check_model(role: str, folder: Path, recipe: Recipe, by_names: bool = False) -> None:
    """What a folder on this disk must hold: a configuration, weights without pickles, a tokenizer, the right head (of a language model
    for one that labels `by_names`)."""
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise RecipeError(
            f"{role}.model: {folder} has no config.json; name the folder that save_pretrained wrote."
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        found = f"only {pickles[0]}, a pickle, which could run code" if pickles else "none"
        raise TeacherError(
            f"{role}.model: {folder} has no *.safetensors weights ({found}); save it again with save_pretrained."
        )
    for path in sorted(folder.glob("*.safetensors")):
        if why := cut_short(path):
            raise TeacherError(f"{role}.model: {path} is not whole ({why}); copy, download or save it again.")
    if not names & TOKENIZERS:
        raise RecipeError(
            f"{role}.model: {folder} holds no tokenizer (tokenizer.json); save it there with save_pretrained."
        )
    if (folder / "tokenizer.json").is_file() and not {"model", "added_tokens"} <= set(
        json_in(folder / "tokenizer.json")
    ):
        raise RecipeError(
            f"{role}.model: {folder / 'tokenizer.json'} is no tokenizer; save the tokenizer again."
        )
    if role == "teacher" and recipe.student.vocabulary is not None:
        _trimmable(folder)
    made_for = (model_config(folder).get("architectures") or [""])[0]
    compared = recipe.terms if role in ("teacher", "student") else []
    about_layers = [term for term in living(compared) if isinstance(term, ABOUT_LAYERS)]
    if fault := _head_fault(recipe.task, folder, made_for, about_layers):
        raise RecipeError(f"{role}.model: {fault}")
    if fault := _layers_fault(role, folder, recipe, about_layers):
        raise RecipeError(fault)
    if recipe.task == "causal_lm" and OTHER_HEAD.search(made_for):
        raise RecipeError(
            f"{role}.model: {folder} is a {made_for}, which cannot generate text; name a causal language model, or "
            f"set task: {'masked_lm' if MASKED_HEAD.search(made_for) else 'classification'}."
        )
    if recipe.task in ("masked_lm", "seq2seq"):
        if recipe.task == "masked_lm":
            _encoder(role, folder, made_for, recipe)
        return
    if by_names:
        if OTHER_HEAD.search(made_for):
            raise RecipeError(
                f"teacher.model: {folder} is a {made_for}, which says no words; name a causal language model, or remove "
                "zero_shot."
            )
        return
    untrained = role != "student" and (role != "teacher" or recipe.teacher.finetune is None)
    if (
        recipe.task == "classification"
        and untrained
        and "SequenceClassification" not in (made_for or CLASSIFIER)
    ):
        raise RecipeError(
            f"{role}.model: {folder} is a {made_for}, whose classifier is not trained yet; "
            + ("add teacher.finetune." if role == "teacher" else "name one that is.")
        )


def _trimmable(folder: Path) -> None:
    """Whether the teacher's tokenizer can lose tokens, as far as its files say.  Raises: RecipeError in a sentence."""
    if (folder / "tokenizer.json").is_file():
        kind = json_in(folder / "tokenizer.json")["model"].get("type")
        if kind is not None:  # old files do not say
            check_tokenizer("the teacher's tokenizer", kind)
    elif (folder / "source.spm").is_file():
        check_tokenizer("the teacher's tokenizer (source.spm, Marian's)", None)


def _layers_fault(role: str, folder: Path, recipe: Recipe, about_layers: Sequence[Any]) -> str | None:
    """What training would say of these terms, as far as the configuration tells; of a student that is made from the teacher too."""
    whole, made = model_config(folder), recipe.student.from_config
    changes = made.config if role == "teacher" and made is not None else {}
    learns = role == "student" or recipe.student.model is None
    return layers_fault(about_layers, {**(whole.get("text_config") or whole), **changes}, learns)


def _head_fault(task: str, folder: Path, made_for: str, about_layers: Sequence[Any]) -> str | None:
    """Why a model that its files call `made_for` does not write as the task wants it, in a sentence; None if it does, or its files
    do not say.  Args: about_layers: the terms of the objective that compare layers."""
    both = bool(model_config(folder).get("is_encoder_decoder"))
    if task == "causal_lm" and both:
        return f"{folder} is an encoder–decoder; set task: seq2seq, or name a causal language model."
    if task == "classification" and both and about_layers:
        return f"{folder} is an encoder–decoder, whose layers are compared for task: seq2seq alone; remove {about_layers[0].kind} from objective."
    if task == "seq2seq" and (not both or OTHER_HEAD.search(made_for)):
        said = made_for or "model without a decoder of its own"
        return f"{folder} is a {said}, which writes no target from a source; name an encoder–decoder such as T5, BART or Marian, or set another task."
    if task == "seq2seq":
        family = str(model_config(folder).get("model_type"))
        return target_fault(family, made_for or family)
    return None


def _encoder(role: str, folder: Path, made_for: str, recipe: Recipe) -> None:
    """What a masked language model must be; `made_for` is the class that was saved, if its configuration says so."""
    if re.search(r"For(CausalLM|ConditionalGeneration)$|LMHeadModel$", made_for):
        raise RecipeError(
            f"{role}.model: {folder} is a {made_for}, which reads from left to right; name a masked language model, or set "
            "task: causal_lm."
        )
    headless = bool(made_for) and not MASKED_HEAD.search(made_for)
    if headless and role != "student" and not (role == "teacher" and recipe.compares_layers_alone):
        raise RecipeError(
            f"{role}.model: {folder} is a {made_for}, which has no trained masked-language-model head, so what it said of hidden "
            "tokens would be random; "
            + (
                "use terms about layers alone, such as {kind: relations}, or name one with its head."
                if role == "teacher"
                else "name one that has."
            )
        )
    if headless and role == "teacher" and recipe.gate.min_retention is not None:
        raise RecipeError(
            f"gate.min_retention: teacher.model, a {made_for}, says nothing of hidden tokens that could be kept; remove the gate."
        )
    begins_with_it = role == "student" or (role == "teacher" and recipe.student.model is None)
    if headless and begins_with_it and recipe.student.adapter is not None:
        raise RecipeError(
            f"student.adapter: {role}.model, a {made_for}, has no masked-language-model head, and the drawn one would stay as it is "
            "beside adapters; remove the adapter, or name a model with its head."
        )


def positions(folder: Path) -> int | None:
    """How many tokens the model in `folder` reads at once, at most; None if its configuration has no bound."""
    whole = model_config(folder)
    config = whole.get("text_config") or whole
    longest = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(longest, int) or str(config.get("model_type")).endswith("t5"):
        return None  # T5's files name a number, and its distances have no end
    if str(config.get("model_type")) in AFTER_PADDING:
        longest -= int(config.get("pad_token_id") or 0) + 1
    return longest


def check_positions(role: str, folder: Path, recipe: Recipe) -> None:
    """Whether a family that counts its positions has enough of them, for what is read and for what an encoder–decoder writes.

    A classifier or a causal language model without a table of positions reads on beyond those that its configuration names.
    """
    longest = positions(folder) if folder.is_dir() else None
    if longest is None:
        return
    wanted = {"data.max_length": recipe.data.max_length}
    if recipe.task in ("causal_lm", "classification"):
        if not any(POSITIONS.search(name) for name in tensors_in(folder)):
            return
    else:
        if recipe.evaluate.answers is not None:
            wanted["evaluate.answers.max_new_tokens"] = recipe.evaluate.answers.max_new_tokens
        if recipe.rollouts is not None:
            wanted["rollouts.max_new_tokens"] = recipe.rollouts.max_new_tokens
        for one in recipe.data.generate:
            if isinstance(one, Answers):
                wanted["data.generate: answers.max_new_tokens"] = one.max_new_tokens
    for name, tokens in wanted.items():
        if tokens > longest:
            raise RecipeError(
                f"{name}: {role}.model reads {longest} tokens at most, not {tokens}; set it to {longest} or less."
            )
