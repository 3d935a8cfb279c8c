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
        return classes_fault(objective)
    if task == "seq2seq":
        return f"{SAID}, and encoder–decoders must share one; choose a student of its family."
    if task == "masked_lm":
        return f"{SAID}, and both say which of the same tokens were hidden; choose a student of its family."
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


def apart_fault(task: str, objective: Sequence[Term]) -> str | None:
    """Why a term does not fit a student that loses tokens which its teacher keeps; None if all fit."""
    wrong = compares_tokens(objective) if task == "classification" else None
    if wrong is None:
        return None
    return (
        f"student.vocabulary: a classifier's teacher keeps all of its tokens, and {wrong} compares the same ones; remove one of "
        "them, or trim in a run of its own (student.from_teacher: {}) and name its student as the teacher"
    )


def compares_tokens(objective: Sequence[Term]) -> str | None:
    """The kind of a term of a classifier's objective that needs both models to cut a text into the same tokens."""
    for term in objective:
        if not isinstance(term, (*TEACHERLESS, SoftTerm)) or isinstance(term, CrossTokenizer):
            return term.kind
    return None


def classes_fault(objective: Sequence[Term], said: str = SAID) -> str | None:
    """Classes are the same in any tokens; layers are not."""
    wrong = compares_tokens(objective)
    if wrong is None:
        return None
    return f"{said}, and {wrong} compares the same tokens; use {{kind: forward_kl}}, or choose a student of its family."
