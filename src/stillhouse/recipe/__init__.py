"""The recipe: pydantic and YAML only.  It knows nothing of torch, and importing it costs little."""

from .api import Api, Price
from .core import Recipe
from .data import Also, Augment, Data, DataSet
from .load import load_recipe, parse_recipe
from .objective import (
    JS,
    AdaptiveKL,
    AlphaBeta,
    Attention,
    Custom,
    Embeddings,
    FeatureTerm,
    ForwardKL,
    Hard,
    Hidden,
    PolicyGradient,
    Relations,
    ReverseKL,
    Schedule,
    Similarity,
    SkewForwardKL,
    SkewReverseKL,
    SoftTerm,
    Term,
    TotalVariation,
)
from .outputs import Evaluate, Gate, Report
from .rollouts import Rollouts, rollouts_fault
from .student import FromConfig, FromTeacher, Student
from .teacher import Finetune, Label, Teacher
from .train import Train

__all__ = [
    "JS",
    "AdaptiveKL",
    "AlphaBeta",
    "Also",
    "Api",
    "Attention",
    "Augment",
    "Custom",
    "Data",
    "DataSet",
    "Embeddings",
    "Evaluate",
    "FeatureTerm",
    "Finetune",
    "ForwardKL",
    "FromConfig",
    "FromTeacher",
    "Gate",
    "Hard",
    "Hidden",
    "Label",
    "PolicyGradient",
    "Price",
    "Recipe",
    "Relations",
    "Report",
    "ReverseKL",
    "Rollouts",
    "Schedule",
    "Similarity",
    "SkewForwardKL",
    "SkewReverseKL",
    "SoftTerm",
    "Student",
    "Teacher",
    "Term",
    "TotalVariation",
    "Train",
    "load_recipe",
    "parse_recipe", "rollouts_fault",
]  # fmt: skip
