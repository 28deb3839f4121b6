"""Settings that hold for every store: `settings.toml` in the user's folder of settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from opd_tui.folders import config_folder
from opd_tui.metrics import BY_KEY
from opd_tui.palette import Depth

Order = Literal["study order", "success", "alignment", "worst", "name"]


class SettingsError(Exception):
    """The file cannot be used. One sentence."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of the file, with their defaults."""

    theme: Literal["dark", "light"] = "dark"
    colours: Literal["auto", "truecolor", "256", "16", "none"] = "auto"
    marks: bool = False
    whitespace: bool = True
    metric: str = "alignment"
    order: Order = "study order"
    mouse: bool = True
    restore: bool = True

    @property
    def depth(self) -> Depth | None:
        """How many colours to use; None: as the terminal says."""
        return {"truecolor": Depth.TRUECOLOR, "256": Depth.EIGHT_BIT, "16": Depth.STANDARD, "none": Depth.NONE}.get(self.colours)


DEFAULTS = Settings()

#: What each field is for; docs/explorer.md has the same table.
MEANINGS = {
    "theme": "ground of the screen",
    "colours": "how many colours to use; auto asks the terminal, and heeds NO_COLOR",
    "marks": "signs under the tokens as well; always there where there are 16 colours or none",
    "whitespace": "glyphs for spaces and line ends",
    "metric": "what colours the tokens at first",
    "order": "order of the questions at first",
    "mouse": "clicks and the wheel; without them the terminal selects text as usual",
    "restore": "come back to where a store was left",
}


def allowed(field: str) -> str:
    """What may stand in a field, in words."""
    if field == "metric":
        return ", ".join(BY_KEY)
    kind = {one.name: one.type for one in msgspec.structs.fields(Settings)}[field]
    return "true, false" if kind is bool else ", ".join(get_args(kind))


def settings_file() -> Path:
    """Where the file lies, if there is one."""
    return config_folder() / "settings.toml"


def load_settings(path: Path | None = None) -> Settings:
    """The settings of the user. Raises SettingsError with one sentence that names the file, the line and what is allowed."""
    path = path or settings_file()
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return DEFAULTS
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"{path} cannot be read: {reason}.") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}.") from None
    names = [one.name for one in msgspec.structs.fields(Settings)]
    for name, value in raw.items():
        where = f"{path}{_line(text, name)}"
        if name not in names:
            raise SettingsError(f"{where}: `{name}` is no setting; there are {', '.join(names)}.")
        try:
            msgspec.convert({name: value}, Settings)
            fits = name != "metric" or value in BY_KEY
        except msgspec.ValidationError:
            fits = False
        if not fits:
            raise SettingsError(f"{where}: `{name}` = {value!r} is not allowed; allowed: {allowed(name)}.")
    return msgspec.convert(raw, Settings)


def _line(text: str, name: str) -> str:
    """On which line a field is set, where that can be told."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[?[\"']?{re.escape(name)}[\"']?\s*[=.\]]", line):
            return f", line {number}"
    return ""
