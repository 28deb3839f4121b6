"""The examples that come with opd-tui: in a wheel under `_examples`, in a checkout under `examples`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from compute.errors import StudyError

_STUDIES = {
    "chain_sums": ("chain_sums", "study.toml"),
    "smollm2_chain_sums": ("smollm2", "chain_sums.toml"),
    "smollm2_boolq": ("smollm2", "boolq.toml"),
    "smollm2_boolq_contexts": ("smollm2", "boolq_contexts.toml"),
    "smollm2_gsm8k": ("smollm2", "gsm8k.toml"),
    "smollm2_mmlu": ("smollm2", "mmlu.toml"),
    "smollm2_aime": ("smollm2", "aime.toml"),
}
#: Keys whose value may be a file or folder beside the study.
_FILES = ("model", "questions", "dataset", "context_model", "summary_model")


def example_folder(name: str) -> Path:
    """The folder of an example. The checkout comes first: an editable install keeps a stale copy under `_examples`."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "examples" / name, package / "_examples" / name):
        if folder.is_dir():
            return folder
    raise StudyError(f"The example `{name}` is not part of this installation ({package}).")


def example_study(name: str) -> str:
    """The text of an example's study file, its relative paths made absolute where they lie in the example."""
    if name not in _STUDIES:
        raise StudyError(f"There is no example `{name}`; there are {', '.join(_STUDIES)}.")
    folder, file = _STUDIES[name]
    place = example_folder(folder)
    lines = []
    for line in (place / file).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition(" = ")
        named = value.strip().strip('"')
        is_file = bool(equals and key in _FILES and named) and (place / named).exists()
        lines.append(f'{key} = "{place / named}"' if is_file else line)
    return "\n".join(lines) + "\n"


def extra_missing() -> bool:
    """Whether the extra [compute] is not installed."""
    return find_spec("torch") is None or find_spec("transformers") is None
