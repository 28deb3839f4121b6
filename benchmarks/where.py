"""Where the time of a study goes: `python -m benchmarks.where [--json] [--limit 2] [STUDY.toml]`.

Computes a study in this process while a thread looks twice a hundredth of a second at what it does, so nothing is slowed
down inside. A look counts for the models where a model of transformers or the head over the vocabulary is on the stack;
otherwise for the innermost file of ours. The figure is the share outside of the models.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks.measure import close
from compute.progress import Reporter
from compute.runner import run
from compute.setup import prepare

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = ROOT / "examples" / "smollm2" / "chain_sums.toml"
EVERY_S = 0.005
OURS = tuple(str(ROOT / room) for room in ("compute", "store"))


def place(frame: FrameType | None) -> str:
    """What a stack is at: the models, or a function of ours."""
    inner = ""
    while frame is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if "/transformers/" in path and "/compute/" not in path and "/models/" in path:
            return "models: layers"
        if name == "logits" and path.endswith("compute/models.py"):
            return "models: head"
        if not inner and path.startswith(OURS):
            inner = f"{Path(path).relative_to(ROOT)} {name}"
        frame = frame.f_back
    return inner or "elsewhere"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--limit", type=int, default=2, help="questions")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    reporter = Reporter(0)
    setup = prepare(options.study, reporter)
    looks: Counter[str] = Counter()
    over = threading.Event()
    worker = threading.main_thread().ident

    def look() -> None:
        while not over.wait(EVERY_S):
            looks[place(sys._current_frames().get(worker or 0))] += 1

    watch = threading.Thread(target=look, daemon=True)
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        watch.start()
        run(setup, Path(folder) / "s.zarr", reporter, limit=options.limit)
        over.set()
        watch.join()
    total = sum(looks.values())
    inside = sum(count for name, count in looks.items() if name.startswith("models"))
    if not options.json:
        print(f"{options.limit} questions, {time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} CPU seconds")
        for name, count in looks.most_common(24):
            print(f"{name:60} {100 * count / total:6.1f} %")
    close("where", {"share_outside_models": 1.0 - inside / total})


if __name__ == "__main__":
    main()
