"""How much memory there is, and what running out of it looks like."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from compute.engine.slots import GRAIN, whole
from compute.errors import ComputeError

#: Rows beyond which nothing gets faster, without and with CUDA.
_MOST = (256, 1024)
#: Of the memory that is free, how much a batch may plan with.
_SHARE = 0.8
#: Cgroup files with the limit and the use of this container, version 2 and version 1.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
_REFUSALS = ("can't allocate memory", "not enough memory", "out of memory", "could not create a memory", "std::bad_alloc")


def available(device: torch.device) -> int:
    """Bytes that may still be taken on `device`.

    On CUDA what is free, and what torch holds and does not use. Elsewhere the least of: free memory of the machine, of
    this container, and of the limit on this process's address space.
    """
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    bounds = [_machine(), *_containers()]
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = _first_number(Path("/proc/self/statm"))
    if soft != resource.RLIM_INFINITY and taken is not None:
        bounds.append(soft - taken * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(bounds))


def is_refusal(error: BaseException) -> bool:
    """Whether `error` says that an allocation was refused, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _REFUSALS)


@contextmanager
def told(what: str, device: torch.device) -> Iterator[None]:
    """Raise `ComputeError` where memory on `device` is refused for `what`, which cannot be done in smaller steps."""
    try:
        yield
    except Exception as error:
        if not is_refusal(error):
            raise
        raise ComputeError(
            f"There is no memory on {device} for {what}; "
            "lower `sampling.max_response_tokens`, or use a smaller `dtype` or a larger device for the model."
        ) from error


def release() -> None:
    """Give cached memory back, after a refusal."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Elsewhere nobody says what is free: half of what there is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _containers() -> list[int]:
    bounds = []
    for limit, use, stat in _CGROUPS:
        most, taken = _first_number(Path(limit)), _first_number(Path(use))
        if most is not None and taken is not None:
            bounds.append(most - taken + _reclaimable(Path(stat)))
    return bounds


def _reclaimable(stat: Path) -> int:
    """Pages of files that the kernel drops when memory is asked for: counted as use, and free all the same."""
    try:
        rows = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(rows.get("inactive_file", 0))


def _first_number(path: Path) -> int | None:
    """The number that a file begins with; None without one (`max` means no limit)."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


class Budget:
    """How many rows run together: what was asked for, what memory allows, and half of it after each refusal."""

    def __init__(self, device: torch.device, slots: int, least: int, limit: int | None, note: Callable[[str], None]) -> None:
        self._device = device
        self.most = max(slots // GRAIN * GRAIN, least) if slots else _MOST[device.type == "cuda"]
        self._chosen = slots > 0
        self._least = least
        self._limit = limit
        self._note = note
        self._noted = False
        self.slots = self.most

    def rows(self, wanted: int, row_bytes: int, shared_bytes: int) -> int:
        """Rows to start with: no more than `wanted`, than was asked for, and than the memory for `row_bytes` each.

        `shared_bytes`, what all rows have in common, count against the limit: they are taken already, so not against what
        is free.
        """
        rows = min(self.most, whole(wanted))
        if self._limit is not None or not self._chosen:
            room = int(_SHARE * available(self._device))
            if self._limit is not None:
                left = self._limit - shared_bytes
                self._note_excess(self._least * row_bytes - left)
                room = min(room, left)
            rows = min(rows, room // row_bytes // GRAIN * GRAIN)
        return max(self._least, rows)

    def _note_excess(self, over: int) -> None:
        if over > 0 and not self._noted:
            self._noted = True
            self._note(
                f"{self._least} completions at once, the least that can be run, may take {over / 2**20:.1f} MiB more than "
                "`engine.memory_limit`; raise it, or lower `sampling.max_response_tokens`."
            )

    def run(self, work: Callable[[int], None], rows: int) -> None:
        """Do `work` with `rows` rows; with half as many, for good, each time memory is refused.

        Raises `ComputeError` where even the least number of rows does not fit.
        """
        while True:
            self.slots = rows
            try:
                work(rows)
            except Exception as error:
                if not is_refusal(error):
                    raise
                if rows <= self._least:
                    raise ComputeError(
                        f"There is no memory on {self._device} for {rows} completions at once, the least that can be run; "
                        "lower `sampling.max_response_tokens`, or use a smaller `student.dtype` or a larger device."
                    ) from error
                refused = True
            else:
                refused = False
            if not refused:
                return
            # Here, where the error and what its frames held is gone.
            release()
            self.most = rows = max(self._least, rows // 2 // GRAIN * GRAIN)
            self._note(f"Memory on {self._device} ran out; going on with {rows} completions at once, with the same results.")
