"""Bytes that a token of a rollout takes in a store, array by array: `python -m benchmarks.bytes S.zarr`.

Read off the commit records. The token ids of kept completions stand apart: how many there are is a matter of `[keep]`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import store
from benchmarks.measure import close
from store import layout
from store.place import METADATA
from store.schema import STUDENT, TEACHER

#: The token axis and what hangs on it; everything else is by question, rollout, node, group or completion.
BY_TOKEN = ("token", "token_bound", "extra")


def main() -> None:
    path = Path(sys.argv[1])
    opened = store.open(path)
    taken: dict[tuple[str, str, str], int] = defaultdict(int)
    groups = [("student", STUDENT), *((f"teacher/{teacher.id}", TEACHER) for teacher in opened.teachers)]
    for group, specs in groups:
        for part in opened.part_ids:
            try:
                commit = layout.read_commit(path / group / part, opened.attributes.study_hash)
            except FileNotFoundError:
                continue
            for file, (size, _) in commit.files.items():
                name, *inside = file.split("/")
                kind = "tokens" if specs[name].dims[0] in BY_TOKEN else "nodes and the rest"
                kind = "completions" if name.startswith("completion_") else kind
                taken["descriptions" if inside == [METADATA] else kind, group, name] += size
    n_tokens = opened.counts().n_tokens
    totals: dict[str, float] = defaultdict(float)
    for (kind, group, name), size in taken.items():
        totals[kind] += size / n_tokens
        if kind == "tokens" and "--json" not in sys.argv:
            print(f"{group:30} {name:28} {size / n_tokens:8.2f} B")
    close(f"bytes a token, {n_tokens} tokens, {len(opened.teachers)} teachers, top {opened.attributes.top_k}", totals)


if __name__ == "__main__":
    main()
