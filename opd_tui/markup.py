"""HTML files that hold all they need and fetch nothing: text as text, data that cannot become markup, scripts by their hash."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any

#: A script or a style element ends at the first `</`, and U+2028 ends a line of a script: none of them gets into a file.
_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def resource(name: str) -> str:
    """A file of `opd_tui/html_page`."""
    return files("opd_tui").joinpath("html_page", name).read_text(encoding="utf-8")


def data(value: Any) -> str:
    """`value` as JSON for a script element that is never run. Numbers that are none become null."""
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_IN_SCRIPT)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def head(title: str, style: str, script: str = "", *, inline_styles: bool = False) -> str:
    """Everything up to the body. Nothing is ever fetched, and nothing run but this script, whatever the body holds.

    Elements may have styles of their own only with `inline_styles`.
    """
    styles = "'unsafe-inline'" if inline_styles else f"'{_hash(style)}'"
    policy = f"default-src 'none'; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src '{_hash(script)}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n'
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
