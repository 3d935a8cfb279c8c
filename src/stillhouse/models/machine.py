"""What this machine does fast."""

import os
import platform
import time
from functools import cache

import torch
import transformers


def device() -> torch.device:
    """The accelerator if there is one, else the processor."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return there or torch.device("cpu")


def accelerator() -> str | None:
    """What the accelerator is called, where it tells; None without one."""
    return torch.cuda.get_device_name() if device().type == "cuda" else None


def synchronise() -> None:
    """Wait until the accelerator has done what it was given, so that a clock means something."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


@cache  # the runs of a plan should not differ in it
def bfloat16_pays() -> bool:
    """Whether matrix products are at least 1.5 times as fast in bfloat16 as in float32, measured in some 100 ms once a process."""
    place = device()
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if place.type != "cpu":
        return False
    # a processor without such instructions is slower by a factor, which a small product shows; a large one takes it seconds
    return _gain(size=128, repeats=3) > 0.5 and _gain(size=768, repeats=12) >= 1.5


def _gain(size: int, repeats: int) -> float:
    """How many times as fast a product is in bfloat16, in turn and by the fastest of each: a busy machine slows both."""
    fastest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(repeats):
        for dtype in fastest:
            matrix = torch.ones(size, size, dtype=dtype)
            start = time.perf_counter()
            matrix @ matrix
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    return fastest[torch.float32] / fastest[torch.bfloat16]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int | float]:
    """What a reader of numbers must know about where they were measured."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": str(device()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.machine()
