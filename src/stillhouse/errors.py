"""Everything that can go wrong and be said in one sentence.

    StillhouseError            1   a bug of ours, if it is not one of the below
    ├── RecipeError            2   the recipe or the command line is wrong
    │   └── MissingExtra       2   an optional package is not installed
    ├── DataError              3   a file, a row or a field of the data is wrong
    ├── TeacherError           4   a teacher, a download or the network failed
    ├── ResourceError          5   memory, disk or a lock is not to be had
    └── GateError              6   the run finished, and a quality gate of the recipe failed

Add a class here only for a new exit code.  A message names the file, row or field and the remedy.
"""


class StillhouseError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_code = 1


class RecipeError(StillhouseError):
    """The recipe, or what was typed, is wrong."""

    exit_code = 2


class MissingExtra(RecipeError):
    """An optional package is needed for what was asked."""


class DataError(StillhouseError):
    """A file, a row or a field of the data is wrong."""

    exit_code = 3


class TeacherError(StillhouseError):
    """A teacher, a download or the network failed."""

    exit_code = 4


class ResourceError(StillhouseError):
    """Memory, disk or a lock is not to be had."""

    exit_code = 5


class GateError(StillhouseError):
    """A quality gate of the recipe failed."""

    exit_code = 6
