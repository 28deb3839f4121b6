"""The pictures of README and docs, drawn anew from the study that is shipped: `make pictures`."""

from __future__ import annotations

from pathlib import Path

from opd_tui.screenshot import screenshot

HERE = Path(__file__).parent
STUDY = HERE.parent / "examples" / "chain_sums" / "chain_sums.zarr"
#: A question, the teacher to look through, and the keys that lead from there to the picture.
PICTURES = {
    "browse": ("q003/5", "self-1c", ["right_square_bracket"]),
    "compare": ("q003/5", "teacher", ["c", "f"]),
    "charts": ("q003/5", "teacher", ["g"]),
}


def main() -> None:
    """Write them all."""
    (HERE / "images").mkdir(exist_ok=True)
    for name, (at, teacher, keys) in PICTURES.items():
        (HERE / "images" / f"{name}.svg").write_text(screenshot(str(STUDY), at=at, teacher=teacher, keys=keys))


if __name__ == "__main__":
    main()
