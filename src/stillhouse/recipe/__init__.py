"""The recipe: pydantic and YAML only.  It knows nothing of torch, and importing it costs little."""

from .core import Recipe
from .data import Also, Data, DataSet
from .load import load_recipe, parse_recipe
from .objective import ForwardKL, Hard, Term
from .outputs import Evaluate, Gate, Report
from .student import FromConfig, FromTeacher, Student
from .teacher import Finetune, Label, Teacher
from .train import Train

__all__ = [
    "Also", "Data", "DataSet", "Evaluate", "Finetune", "ForwardKL", "FromConfig", "FromTeacher", "Gate", "Hard",
    "Label", "Recipe", "Report", "Student", "Teacher", "Term", "Train", "load_recipe", "parse_recipe",
]  # fmt: skip
