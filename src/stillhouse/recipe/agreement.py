"""What sections of a recipe ask of one another: one sentence a disagreement, with its remedy.

The first one is what the user reads; where a later one would only follow from it, it comes first.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .api import api_fault
from .crossing import apart_fault
from .masked import masked_faults
from .objective import (
    NONE_LIVING,
    TEACHERLESS,
    AdaptiveKL,
    AlphaBeta,
    CrossTokenizer,
    Custom,
    ForwardKL,
    PolicyGradient,
    Schedule,
    SoftTerm,
)
from .outputs import SIMPLE, memorisation_fault
from .panel import alone_fault, context_fault, members_fault, panel_fault
from .plan import TEACH_ON, Rounds, asked_fault
from .rollouts import Adaptive, rollouts_fault
from .seq2seq import seq2seq_fault
from .written import paraphrase_fault, written_fault
from .zero_shot import zero_shot_fault

if TYPE_CHECKING:
    from .core import Recipe


def faults(recipe: "Recipe") -> Iterator[str]:
    """All disagreements, in the order in which they are to be mended."""
    if not recipe.terms:
        yield NONE_LIVING
    if fault := seq2seq_fault(recipe):
        yield fault
    for found in (
        masked_faults,
        _of_teacher,
        _of_layers,
        _of_rollouts,
        _of_kept_targets,
        _of_evaluation,
        _of_data,
        _of_gate,
        _of_formats,
    ):
        yield from found(recipe)


def _of_teacher(recipe: "Recipe") -> Iterator[str]:
    settings, student = recipe.teacher, recipe.student
    tuned, averaged = settings.finetune is not None, settings.ema is not None
    kinds = [
        api_fault(recipe),
        zero_shot_fault(recipe),
        panel_fault(recipe.task, settings.panel, settings.pool, tuned, averaged),
        members_fault(recipe),
        context_fault(recipe) if settings.context is not None else None,
        alone_fault(settings, recipe.data, student.vocabulary is not None),
        asked_fault(recipe, next(iter(settings.asked))) if settings.asked else None,
    ]
    yield from (fault for fault in kinds if fault)
    if student.vocabulary is not None and isinstance(recipe.plan, TEACH_ON):
        yield (
            f"student.vocabulary: the later runs of plan: {recipe.plan.kind} have a student of fewer tokens than their "
            "teacher; trim in a run of its own"
        )
    if student.vocabulary is not None and (fault := apart_fault(recipe.task, recipe.terms)):
        yield fault


def _of_layers(recipe: "Recipe") -> Iterator[str]:
    """Layers are those of one model that reads what the student reads."""
    settings = recipe.teacher
    if settings.panel is None and settings.context is None and settings.zero_shot is None:
        return
    for term in recipe.terms:
        if not isinstance(term, (*TEACHERLESS, SoftTerm, PolicyGradient)):
            yield (
                f"objective: {term.kind} compares layers, and a teacher with a panel, a context or zero_shot has none like the "
                "student's; use forward_kl"
            )
        if isinstance(term, CrossTokenizer):
            yield "objective: cross_tokenizer needs one teacher without a context; remove the other"


def _of_rollouts(recipe: "Recipe") -> Iterator[str]:
    """The student's own rows need a teacher that answers at once, and estimates from them unbiased draws."""
    if recipe.teacher.ema is not None and not recipe.label.online:
        yield "teacher.ema: what the student itself says cannot be kept beforehand; set label.online: true"
    if fault := rollouts_fault(recipe.terms, recipe.rollouts, recipe.train.rationale_weight):
        yield fault
    if recipe.rollouts is None:
        return
    if recipe.task not in ("causal_lm", "seq2seq"):
        yield "rollouts: only a language model writes; remove them"
    if not recipe.has_teacher:
        yield (
            "rollouts: no term uses the teacher, who judges what the student writes; give one, such as {kind: forward_kl}, a "
            "weight above 0"
        )
    if not recipe.label.online:
        yield "rollouts: nobody has labelled what the student writes; set label.online: true"
    if isinstance(recipe.rollouts.share, Adaptive) and recipe.data.validation is None:
        yield (
            "rollouts.share: grows when the loss on the validation rows stops falling, and there are none; set "
            "data.validation: 0.1"
        )


def _of_kept_targets(recipe: "Recipe") -> Iterator[str]:
    """What the terms compare with must be something that lies on disk, unless the teacher is asked meanwhile."""
    if recipe.label.online:
        return
    soft = [term for term in recipe.terms if isinstance(term, SoftTerm)]
    for term in recipe.terms:
        if not isinstance(term, (*TEACHERLESS, SoftTerm)):
            yield f"objective: {term.kind} compares layers, which are not kept on disk; set label.online: true"
    for term in soft:
        yield from (f"objective: {term.kind} {fault}" for fault in _of_kept_term(recipe, term))
    temperatures = sorted({term.temperature for term in soft if not isinstance(term.temperature, Schedule)})
    if len(temperatures) > 1:
        yield (
            f"objective: terms ask for temperatures {temperatures}, but soft targets kept on disk have one; "
            "use one temperature, or label.online: true"
        )


def _of_kept_term(recipe: "Recipe", term: SoftTerm) -> Iterator[str]:
    label = recipe.label
    if isinstance(term, CrossTokenizer):
        yield "compares what both models say at once; set label.online: true"
    if isinstance(term.temperature, Schedule):
        yield "changes its temperature, but soft targets kept on disk have one; set label.online: true"
    if label.samples is not None and not isinstance(term, ForwardKL):
        yield "cannot be estimated from sampled targets; use forward_kl, label.top_k, or label.online: true"
    whole = label.top_k == "all" or recipe.task == "classification"
    if isinstance(term, (AdaptiveKL, AlphaBeta, Custom)) and not whole:
        yield f"needs every outcome's probability, and label.top_k keeps {label.top_k}; set label.online: true"


def _of_evaluation(recipe: "Recipe") -> Iterator[str]:
    """Models are asked for what they can do, and judges for what there is."""
    evaluate, gate, writes = recipe.evaluate, recipe.gate, recipe.task in ("causal_lm", "seq2seq")
    if recipe.task in ("causal_lm", "masked_lm") and recipe.teacher.finetune is not None:
        yield "teacher.finetune: only for task: classification and seq2seq"
    if evaluate.answers is not None and not writes:
        yield "evaluate.answers: only a language model writes; remove it"
    if evaluate.judge is not None and evaluate.answers is None:
        yield "evaluate.judge: there are no answers to judge; add evaluate.answers"
    if gate.min_win_rate is not None and (evaluate.judge is None or "teacher" not in evaluate.judge.against):
        yield "gate.min_win_rate: nobody judges; add evaluate.judge, against: [teacher]"
    if evaluate.harness is not None and not writes:
        yield "evaluate.harness: its tasks are for language models; remove it"
    names = evaluate.baseline_names
    if recipe.task != "classification" and (words := [name for name in names if name in SIMPLE]):
        yield f"evaluate.baselines: {words[0]} chooses labels, and a language model has none; name a model"
    if unknown := sorted(set(gate.better_than) - set(names)):
        yield f"gate.better_than: {unknown[0]} is not among evaluate.baselines ({', '.join(names) or 'none'}); add it there"
    sifted = (
        recipe.data.filter is not None and recipe.data.filter.min_confidence and not recipe.teacher.is_ready
    )
    if recipe.train.early_stopping is not None and sifted and recipe.data.validation is None:
        yield (
            "train.early_stopping: student and control would be judged on different rows, for data.filter.min_confidence drops some of "
            "the student's; set data.validation: 0.1"
        )
    if recipe.train.early_stopping is not None and recipe.student.sparsity is not None:
        yield "train.early_stopping: the best student may be one that is not sparse yet; remove it, or student.sparsity"
    if fault := memorisation_fault(evaluate, gate, recipe.task, recipe.teacher.is_local):
        yield fault
    if fault := paraphrase_fault(recipe):
        yield fault


def _of_data(recipe: "Recipe") -> Iterator[str]:
    """Rows without labels are for a teacher to label."""
    data, classifies = recipe.data, recipe.task == "classification"
    if data.augment is not None and not (classifies and recipe.has_teacher):
        yield (
            "data.augment: only a classifier with a teacher can use rows without labels; remove it, or add a forward_kl "
            "term to a recipe with task: classification"
        )
    by_api, reworded = recipe.writing_api is not None, "paraphrase" in recipe.evaluate.perturb
    later = isinstance(recipe.plan, Rounds) and recipe.plan.writes
    if fault := written_fault(data, recipe.task, recipe.has_teacher, by_api, reworded or later):
        yield fault
    if classifies and data.unlabelled is not None and not recipe.has_teacher:
        yield "data.unlabelled: no term of the objective uses the teacher; add a forward_kl term"


def _of_gate(recipe: "Recipe") -> Iterator[str]:
    if recipe.gate.min_gain is None:
        return
    if not recipe.evaluate.hard_only:
        yield "gate.min_gain: needs the control; set evaluate.hard_only: true"
    if not recipe.has_control:
        yield (
            "gate.min_gain: no term of the objective uses the teacher, so the student is its own control; "
            "remove the gate, or add a forward_kl term"
        )


FORMATS = {
    "causal_lm": ("text", "messages", "prompt_completion", "alpaca", "sharegpt"),
    "classification": ("labelled",),
    "masked_lm": ("text",),
    "seq2seq": ("prompt_completion", "alpaca"),
}
"""Task -> what its rows may be; a classifier's `text` without labels goes into data.unlabelled."""


def _of_formats(recipe: "Recipe") -> Iterator[str]:
    """Each task reads rows of its own."""
    data = recipe.data
    named = {"data.train": data.train, "data.eval": data.eval, "data.extra": data.extra}
    named |= {f"evaluate.also[{number}]": also for number, also in enumerate(recipe.evaluate.also or [])}
    for name, one in named.items():
        if one is None or one.format == "auto":
            continue
        if one.format not in FORMATS[recipe.task]:
            yield f"{name}.format: {one.format} does not fit task: {recipe.task}; set it to auto"
