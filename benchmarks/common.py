"""What all benchmarks share: two sides timed in turn, so that a busy machine slows both, and the ratio of their medians."""

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from stillhouse.models.machine import accelerator, machine, synchronise


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each side, `rounds` times, one after the other; the first `warm_up` rounds are not counted."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + warm_up):
        for name, side in sides.items():
            gc.collect()
            synchronise()
            start = time.perf_counter()
            side()
            synchronise()
            seconds = time.perf_counter() - start
            if number >= warm_up:
                found[name].append(seconds)
    return found


def report(title: str, found: dict[str, list[float]], against: str, **facts: Any) -> None:
    """Prints medians, spreads and ratios, and one line of JSON for machines."""
    print(f"\n{title}")
    base = statistics.median(found[against])
    rows = {}
    for name, times in found.items():
        median = statistics.median(times)
        ratios = sorted(one / other for one, other in zip(times, found[against], strict=True))
        rows[name] = {"seconds": round(median, 4), "ratio": round(median / base, 3)}
        spread = f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"  {name:<44} {median:9.4f} s   {median / base:6.2f} × {against}   {spread}")
    for name, value in facts.items():
        print(f"  {name:<44} {value}")
    where = machine()
    print(
        json.dumps(
            {"title": title, "rows": rows, **facts, "machine": where["cpu"], "device": accelerator() or "cpu"}
        )
    )


def extra_memory(action: Callable[[], Any]) -> int:
    """Bytes that tensors of torch took at most while `action` ran, beyond what was there before."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - before
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        action()
    held, most = 0, 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == DeviceType.CPU:
            held += event.nbytes()
            most = max(most, held)
    return most


def peak_memory() -> int:
    """Bytes this process has held at most; on an accelerator, those of it that tensors took."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def arguments(description: str, **defaults: Any) -> argparse.Namespace:
    """Options by their defaults."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()
