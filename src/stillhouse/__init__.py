"""Stillhouse distils large language models into small ones, and proves what was kept.

from stillhouse import Distiller, load_recipe, run
from stillhouse import objectives as kd
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .recipe import Recipe, load_recipe
    from .runner import run
    from .train.distiller import Distiller

_WHERE = {
    "Distiller": "stillhouse.train.distiller",
    "Recipe": "stillhouse.recipe",
    "load_recipe": "stillhouse.recipe",
    "run": "stillhouse.runner",
}

__all__ = ["Distiller", "Recipe", "__version__", "load_recipe", "run"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import stillhouse` does not import torch."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")
