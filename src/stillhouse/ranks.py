"""Several processes of one run: `torchrun --nproc-per-node 2 -m stillhouse run my.yaml`.

Rank 0 makes the run as if it were alone; the others wait, and join it in the stages where models are trained together.  They
find each other through the store that the launcher offers (torchrun's variables RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT):

    <stage>   "join", while rank 0 trains in it; then {"result": …}; or "failed", when rank 0 ended without finishing

A launcher's processes share one run, and end with it.  What a follower needs of a stage is its result and the files in the run folder, which all processes must see.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

from .errors import RecipeError, ResourceError

LOOK = timedelta(seconds=0.2)
"""Between two looks at the store."""
PATIENCE = timedelta(days=3)
"""How long the others wait for one stage of rank 0, which may label for long.  A launcher ends them when rank 0 dies."""
MEETING = timedelta(minutes=10)
"""How long processes that train together wait for the slowest in one step."""


def rank() -> int:
    """This process's number; 0 if it is alone."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """Processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Company:
    """The processes of one run, as each of them sees the others."""

    def __init__(self) -> None:
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        store, number, count = next(rendezvous("env://", timeout=MEETING))
        prefixed: Any = vars(dist)["PrefixStore"]  # torch's own stubs do not export it
        self.store = prefixed("stillhouse", store)
        if not dist.is_initialized():  # the Trainer takes what it finds
            dist.init_process_group(
                _backend(),
                store=prefixed("training", store),
                rank=number,
                world_size=count,
                timeout=MEETING,
            )

    def tell(self, key: str, said: Any) -> None:
        """Rank 0 to the others."""
        self.store.set(key, json.dumps(said))

    def heard(self, key: str, before: Any = None) -> Any:
        """What rank 0 says at `key`, once that is something else than `before`.

        Raises: ResourceError if it failed, or says nothing for PATIENCE.
        """
        for _ in range(PATIENCE // LOOK):
            if self.store.check([key]):
                said = json.loads(self.store.get(key))
                if said == "failed":
                    raise ResourceError("rank 0 of this run has stopped; see what it says.")
                if said != before:
                    return said
            time.sleep(LOOK.total_seconds())
        raise ResourceError(
            f"rank 0 has said nothing of {key} for {PATIENCE.days} days; stop it, and look at it."
        )

    @contextmanager
    def at_work(self, keys: Sequence[str]) -> Iterator[None]:
        """While this is open the others can rely on rank 0: if it fails, they hear so at whichever key they wait for; and it goes
        last, for they may still be reading what it said.
        """
        import torch.distributed as dist

        if not dist.is_initialized():
            raise RecipeError("torchrun: its processes have made a run already; start them anew for another.")
        try:
            yield
        except BaseException:
            for key in keys if rank() == 0 else []:
                self.tell(key, "failed")
            raise
        finally:
            self.store.add("left", 1)
            for _ in range(50 if rank() == 0 else 0):
                if self.store.add("left", 0) >= size():
                    break
                time.sleep(LOOK.total_seconds())
        dist.destroy_process_group()


@cache
def company() -> Company | None:
    """The other processes of this run; None if it is alone."""
    return Company() if size() > 1 else None


def any_of_them(said: bool) -> bool:
    """Whether any process says so.  All must ask, at the same moment of their training."""
    if size() == 1:
        return said
    import torch
    import torch.distributed as dist

    flag = torch.tensor([float(said)])
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _backend() -> str:
    """Both, where there are accelerators: small things are agreed on by the processor."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
