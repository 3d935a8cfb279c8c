"""Whether what is to be written fits the rest of a recipe."""

from typing import Any

from .api import Api
from .data import Data
from .generate import (
    Answers,
    BackTranslation,
    Balance,
    EvolInstruct,
    HardNegatives,
    Paraphrase,
    Rationale,
    SelfInstruct,
)

FOR_CLASSIFIERS = (Paraphrase, BackTranslation, HardNegatives, Balance)
FOR_LANGUAGE_MODELS = (Answers, Paraphrase, BackTranslation, SelfInstruct, EvolInstruct, Rationale)


def paraphrase_fault(recipe: Any) -> str | None:
    """Why nobody can say the held-out rows in other words; None if somebody can, or need not."""
    if "paraphrase" not in recipe.evaluate.perturb:
        return None
    asked, writer = "evaluate.perturb: paraphrase", recipe.data.writer
    if not recipe.teacher.is_local:
        return f"{asked} is written by a model on this machine, and the teacher is behind an API; remove it"
    if writer is not None and writer.api is not None:
        return f"{asked} is written by a model on this machine, and data.writer is an API; remove it"
    if writer is None:
        return f"{asked} needs somebody who writes; name a language model in data.writer.model"
    alone = recipe.teacher.panel is None and recipe.teacher.context is None
    if writer.model is None and (
        recipe.task == "classification" or recipe.student.vocabulary is not None or not alone
    ):
        return f"{asked} is not for this teacher to write; name a language model in data.writer.model"
    return None


def written_fault(
    data: Data, task: str, has_teacher: bool, by_api: bool, elsewhere: bool = False
) -> str | None:
    """Why `data.generate` cannot be done; None if it can, or is not asked for.

    by_api: whether an API writes, be it the teacher's; elsewhere: whether the writer has other rows to write, as rounds need.
    """
    classifier = task == "classification"
    answered = any(isinstance(one, Answers) for one in data.generate)
    if data.unlabelled is not None and not classifier and not answered:
        return (
            "data.unlabelled: nobody answers its prompts; add `generate: [{kind: answers}]`, or put rows with answers in "
            "data.train"
        )
    if fault := _chosen_fault(data, classifier):
        return fault
    if fault := next(filter(None, (_api_fault(name, api) for name, api in data.writers_apis.items())), None):
        return fault
    if not data.generate:
        idle = data.writer is not None and not elsewhere
        return "data.writer: nothing is to be written; add data.generate" if idle else None
    for one in data.generate:
        if not isinstance(one, FOR_CLASSIFIERS if classifier else FOR_LANGUAGE_MODELS):
            return f"data.generate: {one.kind} is not for task: {task}; remove it"
        if isinstance(one, FOR_CLASSIFIERS) and classifier and not has_teacher and not one.keep_label:
            return f"data.generate: nobody labels what {one.kind} makes; set keep_label: true, or add a forward_kl term"
    if classifier and not by_api and (data.writer is None or data.writer.model is None):
        return "data.generate: a classifier cannot write; name a language model in data.writer.model"
    if any(isinstance(one, Answers) for one in data.generate[1:]):
        return "data.generate: answers must come first, for the others go on from them"
    return None


def _api_fault(name: str, api: Api) -> str | None:
    """Why an API that writes is told things that only a teacher is asked; None if it is not."""
    if api.for_teachers:
        return f"{name}.{api.for_teachers[0]}: is for a teacher; remove it"
    if api.max_tokens is not None:
        return (
            f"{name}.max_tokens: data.generate says how long its texts may be, in max_new_tokens; remove it"
        )
    if api.temperature:
        return f"{name}.temperature: data.generate says it for each kind; remove it, or set null to send none"
    return None


def _chosen_fault(data: Data, classifier: bool) -> str | None:
    """Why answers cannot be judged, or chosen from several writers'."""
    answers = [one for one in data.generate if isinstance(one, Answers)]
    by_judge = any(one.choose == "judge" for one in answers)
    scored = data.filter is not None and data.filter.min_score is not None
    if data.writer is not None and data.writer.others and not answers:
        return "data.writer.others: only answers are chosen from several writers'; add generate: [{kind: answers}]"
    if data.judge is None:
        where = "data.generate: choose: judge" if by_judge else "data.filter.min_score"
        return (
            f"{where}: nobody scores the answers; name a model in data.judge" if by_judge or scored else None
        )
    if classifier:
        return "data.judge: scores answers, and a classifier's rows have none; remove it"
    if not by_judge and not scored:
        return "data.judge: is never asked; add filter: {min_score: …}, or generate: [{kind: answers, choose: judge}]"
    return None
