"""A trainer's configuration file as a flat table of dotted keys, from which a trainer takes what it knows."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from compute.errors import ComputeError


class SettingsError(ComputeError):
    """A configuration that cannot be read, or says nothing about distillation."""


class Settings:
    """Keys with their values. Those that are asked for are remembered, and whether they were there."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._values = values
        self.found: dict[str, Any] = {}  #: asked for and there
        self.defaults: dict[str, Any] = {}  #: asked for and not there

    def has(self, key: str) -> bool:
        """Whether `key` is there, under whatever sections."""
        return self._key(key) is not None

    def value(self, key: str, default: Any) -> Any:
        """The value of a dotted key, written out or with sections before it; the trainer's default where it is not there."""
        at = self._key(key)
        if at is None:
            self.defaults[key] = default
            return default
        self.found[key] = self._values[at]
        return self._values[at]

    def word(self, key: str, default: str, allowed: Collection[str]) -> str:
        """A value that is one of some words. Raises `SettingsError`."""
        found = self.value(key, default)
        if found not in allowed:
            raise SettingsError(f"{self.where}: `{key}` = {found!r}; known are {', '.join(allowed)}.")
        return str(found)

    def number(self, key: str, default: float, low: float = 0.0, high: float = float("inf")) -> float:
        """A number between two bounds. Raises `SettingsError`."""
        found = self.value(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            bounds = f"between {low:g} and {high:g}" if high < float("inf") else f"of {low:g} or more"
            raise SettingsError(f"{self.where}: `{key}` = {found!r} must be a number {bounds}.")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        """A yes or no. Raises `SettingsError`."""
        found = self.value(key, default)
        if not isinstance(found, bool):
            raise SettingsError(f"{self.where}: `{key}` = {found!r} must be true or false.")
        return found

    def require(self, trainer: str, keys: Collection[str]) -> None:
        """Raise `SettingsError`, naming the keys that are looked for, where none of them is there."""
        if not any(self.has(key) for key in keys):
            names = ", ".join(list(self._values)[:8])
            raise SettingsError(
                f"{self.where} has no distillation setting of {trainer}; looked for are {', '.join(keys)}, under any section "
                f"(it has {names or 'nothing'})."
            )

    def _key(self, key: str) -> str | None:
        """The key of the file that means `key`: the same, or ending with it, or its last word under fewer sections."""
        matches = [one for one in self._values if one == key or one.endswith(f".{key}")]
        if not matches:
            matches = [one for one in self._values if key.endswith(f".{one}")]
        if len(matches) > 1:
            raise SettingsError(
                f"{self.where}: `{key}` is there {len(matches)} times: {', '.join(sorted(matches)[:4])}; keep one."
            )
        return matches[0] if matches else None


def read_settings(path: Path) -> Settings:
    """A configuration file: .yaml, .toml, .json, or else lines `key=value` as one writes them on a command line.

    Raises `SettingsError` with the remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"The configuration {path} cannot be read: {what}.") from None
    kind = path.suffix.lower()
    if kind in (".yaml", ".yml"):
        found = _yaml(text, path)
    elif kind in (".toml", ".json"):
        try:
            found = tomllib.loads(text) if kind == ".toml" else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path} is not valid {kind[1:].upper()}: {str(error).splitlines()[0]}") from None
    else:
        found = _lines(text, path)
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is no table of settings.")
    return Settings(_flat(found), str(path))


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise SettingsError(
            f"{path}: reading YAML needs PyYAML, which comes with the extra [compute]; or give TOML, JSON, or lines `key=value`."
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())[:120]}") from None


def _lines(text: str, path: Path) -> dict[str, Any]:
    """Lines such as `distillation.distillation_loss.loss_mode=k1`, as verl and Hydra take them; + and -- in front are let go."""
    found: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip().removesuffix("\\").strip()
        if not bare or bare.startswith("#"):
            continue
        key, equals, value = bare.lstrip("+-~").partition("=")
        if not equals or not key.strip() or " " in key.strip():
            raise SettingsError(f"{path}, line {number} is no `key=value`; YAML, TOML and JSON are known by the file's ending.")
        found[key.strip()] = _scalar(value.strip())
    return found


def _scalar(text: str) -> Any:
    """A value as a command line has it: a number, true, false, null, or a text."""
    bare = text.strip("'\"")
    lowered = bare.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("null", "none"):
        return None
    try:
        return json.loads(bare) if bare[:1] in "-.0123456789" else bare
    except ValueError:
        return bare


def _flat(table: Mapping[Any, Any], before: str = "") -> dict[str, Any]:
    """Nested tables with dotted keys; of a list of tables every entry with its number."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            for number, one in enumerate(value):
                flat |= _flat(one, f"{key}.{number}.")
        else:
            flat[key] = value
    return flat
