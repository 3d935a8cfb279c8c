"""What a recipe may ask for when its models are encoder–decoders."""

from typing import Any

from .generate import Answers
from .objective import TEACHERLESS, CrossTokenizer, Hard
from .plan import Rounds

FORMATS = ("auto", "prompt_completion")
"""Of rows with a source and a target."""


def seq2seq_fault(recipe: Any) -> str | None:
    """What of a recipe with `task: seq2seq` cannot be done yet, in a sentence with its remedy; None if all can."""
    if recipe.task != "seq2seq":
        return None
    for found in (_of_models, _of_terms, _of_data, _of_measures):
        if fault := found(recipe):
            return fault
    return None


def _of_models(recipe: Any) -> str | None:
    teacher = recipe.teacher
    if teacher.api is not None and (fault := _of_api(recipe)):
        return fault
    for name in ("panel", "context"):
        if getattr(teacher, name) is not None:
            return f"teacher.{name}: not for task: seq2seq yet; remove it"
    made = recipe.student.from_config
    if made is not None and made.layers == "teacher":
        return "student.from_config.layers: an encoder–decoder's are copied by from_teacher alone; use that, or layers: random"
    return None


def _of_api(recipe: Any) -> str | None:
    """A teacher behind an API is asked about each source, and its answers are the targets: nothing else of it is learned."""
    asked, data = recipe.teacher.api.prompt or "", recipe.data
    if soft := [term.kind for term in recipe.terms if not isinstance(term, TEACHERLESS)]:
        return (
            f"objective: {soft[0]} is not for an encoder–decoder whose teacher is behind an API: it learns the answers' text alone, as "
            "hard targets; use objective: [{kind: hard}]"
        )
    if not any(isinstance(term, Hard) for term in recipe.terms):
        return "objective: nothing learns the answers of teacher.api; add {kind: hard}"
    if strange := [name for name in ("{pair}", "{labels}") if name in asked]:
        return f"teacher.api.prompt: {strange[0]} is filled in for task: classification alone; remove it"
    if data.generate:
        return "data.generate: a teacher behind an API writes the target of every source as it is; remove it"
    if data.unlabelled is not None:
        return "data.unlabelled: a teacher behind an API answers sources without a target in data.train too; put them there"
    if isinstance(recipe.plan, Rounds) and recipe.plan.answers is not None:
        return (
            "plan.answers: a teacher behind an API writes the target of every chosen row as it is; remove it, and give plan.pool rows "
            "with targets, which are replaced"
        )
    return None


def _of_terms(recipe: Any) -> str | None:
    for term in recipe.terms:
        if isinstance(term, CrossTokenizer):
            return "objective: cross_tokenizer is for causal language models; use forward_kl, and a student with the teacher's tokenizer"
    return None


def _of_data(recipe: Any) -> str | None:
    data = recipe.data
    sets = {name: getattr(data, name) for name in ("train", "eval", "extra")}
    sets |= {f"also.{also.name}": also for also in recipe.evaluate.also or []}
    for name, one in sets.items():
        place = f"evaluate.{name}" if name.startswith("also.") else f"data.{name}"
        if one is not None and one.format not in FORMATS:
            return f"{place}.format: {one.format} rows have no source and target; give prompt and completion columns"
        if one is not None and one.sentences:
            return f"{place}.sentences: a source and its target cannot be cut alike; remove it"
    for one in data.generate:
        if not isinstance(one, Answers):
            return f"data.generate: {one.kind} is asked for in words, and an encoder–decoder follows none; remove it"
        if one.temperature:
            return "data.generate: answers: an encoder–decoder writes its likeliest targets alone; set temperature: 0"
        if recipe.teacher.finetune is not None:
            return (
                "data.generate: the teacher would write before teacher.finetune has trained it; fine-tune it in a run of its own, "
                "and name its folder in teacher.model"
            )
    if data.writer is not None:
        return "data.writer: an encoder–decoder's targets are written by its teacher; remove it"
    if data.judge is not None:
        return "data.judge: scores answers to prompts, and a source is none; remove it"
    return None


def _of_measures(recipe: Any) -> str | None:
    asked = recipe.evaluate
    if asked.harness is not None:
        return "evaluate.harness: its tasks are for causal language models; remove it"
    if asked.memorisation is not None:
        return "evaluate.memorisation: is told from what causal language models go on with; remove it"
    if "paraphrase" in asked.perturb:
        return "evaluate.perturb: paraphrase is asked for in words, and an encoder–decoder follows none; remove it"
    if asked.judge is not None:
        return "evaluate.judge: compares answers to prompts, and a source is none; remove it, and read BLEU or ROUGE"
    return None
