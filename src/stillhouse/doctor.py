"""Is this machine fit for a run?"""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from .sources import cache_dir

NEEDED = {
    "torch": ("2.10", "older ones load weights through pickle by default (CVE-2025-32434 and after)"),
    "transformers": ("5.10", "this package is written for 5.x"),
    "pyarrow": ("23.0.1", "older ones have a memory-safety flaw in reading Parquet"),
    "accelerate": ("1.0", "the Trainer needs it"),
    "safetensors": ("0.5", "weights are kept in it"),
    "pydantic": ("2.0", "recipes are checked by it"),
}
UNSAFE = {"litellm": "compromised releases in 2026", "lightning": "compromised releases in 2026"}
FREE_DISK, FREE_MEMORY = 2e9, 2e9


def diagnose() -> dict[str, Any]:
    """{"checks": [{"what", "found", "ok", "remedy"}]}."""
    checks = [
        _check(
            "python",
            platform.python_version(),
            Version(platform.python_version()) >= Version("3.11"),
            "use 3.11 or later",
        )
    ]
    for name, (least, why) in NEEDED.items():
        found = _version(name)
        fine = found is not None and Version(found) >= Version(least)
        checks.append(_check(name, found or "not installed", fine, f"pip install '{name}>={least}': {why}"))
    for name, why in UNSAFE.items():
        if found := _version(name):
            checks.append(_check(name, found, False, f"pip uninstall {name}: {why}"))
    checks.append(_device())
    free = shutil.disk_usage(Path.cwd()).free
    checks.append(_check("disk", f"{free / 1e9:.0f} GB free here", free >= FREE_DISK, "free some space"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    checks.append(
        _check("memory", f"{memory / 1e9:.0f} GB free", memory >= FREE_MEMORY, "close other programs")
    )
    cache = cache_dir()
    writable = os.access(next(p for p in (cache, *cache.parents) if p.exists()), os.W_OK)
    checks.append(_check("cache", str(cache), writable, "set STILLHOUSE_CACHE to a folder you may write"))
    return {"checks": checks}


def _device() -> dict[str, Any]:
    if _version("torch") is None:
        return _check("device", "unknown", False, "install torch first")
    from .models.machine import bfloat16_pays, device, machine

    about = machine()
    fast = "bfloat16 pays" if bfloat16_pays() else "float32 is as fast as bfloat16"
    return _check("device", f"{device()}, {about['cpu']}, {about['cores']} cores; {fast}", True, "")


def _check(what: str, found: str, ok: bool, remedy: str) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok, "remedy": "" if ok else remedy}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
