"""`objective:`: a weighted list of terms.  Each kind holds only its own knobs."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from .section import Section


class _Term(Section):
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the term; weights are not normalised."""


class Hard(_Term):
    """Cross-entropy on the hard targets (labels or tokens)."""

    kind: Literal["hard"] = "hard"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread evenly over all classes or tokens."""


class ForwardKL(_Term):
    """KL(teacher ‖ student), Hinton et al. 2015 (arXiv:1503.02531)."""

    kind: Literal["forward_kl"] = "forward_kl"
    temperature: PositiveFloat = 1.0
    """Divides both models' logits; the term is multiplied by its square, so that its gradient keeps its size."""


Term = Annotated[Hard | ForwardKL, Field(discriminator="kind")]
