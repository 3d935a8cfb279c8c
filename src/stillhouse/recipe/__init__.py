"""The recipe: pydantic and YAML only.  It knows nothing of torch, and importing it costs little."""

from .api import Api, Price
from .core import Recipe
from .crossing import crossing_fault
from .data import Also, Augment, Data, DataSet, Writer
from .filter import Filter
from .forms import Adapter, Quantize, Sparsity
from .load import load_recipe, parse_recipe, read_values
from .objective import (
    JS,
    NONE_LIVING,
    TEACHERLESS,
    AdaptiveKL,
    AlphaBeta,
    Attention,
    CrossTokenizer,
    Custom,
    DeeperLayers,
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
    living,
)
from .outputs import Answers, Baseline, Evaluate, Gate, Harness, Judge, Memorisation, Report
from .panel import Member, Pool
from .plan import Plan, Tune
from .rollouts import Adaptive, Rollouts, rollouts_fault
from .student import FromConfig, FromTeacher, Search, Student, Target
from .teacher import Finetune, Label, Teacher
from .train import EarlyStopping, Train
from .zero_shot import ZeroShot

__all__ = [
    "JS",
    "NONE_LIVING",
    "TEACHERLESS",
    "Adapter",
    "Adaptive",
    "AdaptiveKL",
    "AlphaBeta",
    "Also",
    "Answers",
    "Api",
    "Attention",
    "Augment",
    "Baseline",
    "CrossTokenizer",
    "Custom",
    "Data",
    "DataSet",
    "DeeperLayers",
    "EarlyStopping",
    "Embeddings",
    "Evaluate",
    "FeatureTerm",
    "Filter",
    "Finetune",
    "ForwardKL",
    "FromConfig",
    "FromTeacher",
    "Gate",
    "Hard",
    "Harness",
    "Hidden",
    "Judge",
    "Label",
    "Member",
    "Memorisation",
    "Plan",
    "PolicyGradient",
    "Pool",
    "Price",
    "Quantize",
    "Recipe",
    "Relations",
    "Report",
    "ReverseKL",
    "Rollouts",
    "Schedule",
    "Search",
    "Similarity",
    "SkewForwardKL",
    "SkewReverseKL",
    "SoftTerm",
    "Sparsity",
    "Student",
    "Target",
    "Teacher",
    "Term",
    "TotalVariation",
    "Train",
    "Tune",
    "Writer",
    "ZeroShot",
    "crossing_fault",
    "living",
    "load_recipe",
    "parse_recipe",
    "read_values",
    "rollouts_fault",
]  # fmt: skip
