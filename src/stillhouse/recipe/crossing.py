"""What a recipe may ask for when the teacher's tokenizer is not the student's."""

from collections.abc import Sequence

from .objective import TEACHERLESS, CrossTokenizer, SoftTerm, Term
from .rollouts import Rollouts

SAID = "student.model: its tokenizer is not the teacher's"


def crossing_fault(
    task: str, objective: Sequence[Term], online: bool, rollouts: Rollouts | None
) -> str | None:
    """The sentence that says why such a pair cannot learn from each other here, and what to set; None if it can."""
    if task == "classification":
        return _classes_fault(objective)
    wrong = next(
        (term.kind for term in objective if not isinstance(term, (*TEACHERLESS, CrossTokenizer))), None
    )
    if wrong is not None:
        return (
            f"{SAID}, and {wrong} compares the same tokens; use {{kind: cross_tokenizer}} in the objective and set "
            "label.online: true, or choose a student of its family."
        )
    if rollouts is not None:
        return f"{SAID}, which rollouts cannot do without; remove them."
    if not online and any(isinstance(term, CrossTokenizer) for term in objective):
        return f"{SAID}; set label.online: true."
    return None


def compares_tokens(term: Term) -> bool:
    """Whether a term of a classifier's objective needs both models to cut a text into the same tokens."""
    return not isinstance(term, (*TEACHERLESS, SoftTerm)) or isinstance(term, CrossTokenizer)


def _classes_fault(objective: Sequence[Term]) -> str | None:
    """Classes are the same in any tokens; layers are not."""
    wrong = next((term.kind for term in objective if compares_tokens(term)), None)
    if wrong is None:
        return None
    return f"{SAID}, and {wrong} compares the same tokens; use {{kind: forward_kl}}, or choose a student of its family."
