"""The explorer: an app around one store. `browse` runs it, `OpdTui` is it."""

from __future__ import annotations

from asyncio import Runner, sleep
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.console import RenderableType
from rich.terminal_theme import TerminalTheme
from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme

from opd_tui.loader import OPEN, Answer, Broken, Failed, Loader
from opd_tui.metrics import Metric, metric
from opd_tui.palette import Depth, Palette, depth_of
from opd_tui.screens.opening import Opening
from opd_tui.screens.too_small import TooSmall, is_too_small
from opd_tui.settings import DEFAULTS, Settings, load_settings
from opd_tui.thrift import one_blas_thread, share_arenas
from opd_tui.turns import Turns
from store.errors import StoreError

DARK = Theme(
    name="opd-dark", dark=True, primary="#8ab4f0", accent="#8ab4f0", secondary="#c58af0", warning="#e09a5c", error="#e09a5c",
    success="#7fb2ea", foreground="#d9dce1", background="#101216", surface="#161a20", panel="#1b2028",
    variables={"border": "#414a57"},
)  # fmt: skip
LIGHT = Theme(
    name="opd-light", dark=False, primary="#1f5fa8", accent="#1f5fa8", secondary="#7a34b0", warning="#9c4f0c", error="#9c4f0c",
    success="#1f5fa8", foreground="#1d2025", background="#fbfbfc", surface="#f2f3f5", panel="#e9ebef",
    variables={"border": "#c3c8d0"},
)  # fmt: skip


if TYPE_CHECKING:
    from opd_tui.screens.browse import Browse
    from opd_tui.screens.guest import Guest


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked to see first. The teacher is an id; whether it exists shows when the store is open."""

    at: str | None = None
    teacher: str | None = None
    metric: Metric | None = None  #: None: as it was left, or as the settings say


class OpdTui(App[None]):
    """The explorer of one store."""

    TITLE = "opd-tui"
    _ansi_theme: tuple[str, TerminalTheme] | None = None  #: the last one, and of which theme it is
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+l", "redraw", "draw everything anew", show=False)]

    class Delivered(Message):
        """An answer of the loader, in the app's own queue."""

        def __init__(self, answer: Answer) -> None:
            super().__init__()
            self.answer = answer

    def __init__(
        self,
        path: str,
        wish: Wish | None = None,
        *,
        depth: Depth | None = None,
        settings: Settings = DEFAULTS,
        restore: bool = False,
        remember: bool = False,
        fresh: bool = False,
    ) -> None:
        """The store at `path`. `depth`: how many colours to use, where the terminal is not to be asked.

        `restore`: begin where it was left, or, if `fresh`, anew with its bookmarks; `remember`: keep for the next time where it
        is left.
        """
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (150, "-broad")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (16, "-low"), (32, "-high")]
        self.path = path
        self._depth = depth or settings.depth
        self.settings = settings
        self._remember = remember
        self._leaving = False
        self.failure: StoreError | None = None  #: why the store could not be opened
        self._wish = wish or Wish()
        self.turns = Turns()
        self.loader = Loader(path, self._deliver, self._wish.at, restore=restore, fresh=fresh, give_way=self.turns.give_way)
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.set_reactive(
            OpdTui.theme, LIGHT.name if settings.theme == "light" else DARK.name
        )  # to assign it would have all style sheets parsed once more
        self.stylesheet.set_variables(self.get_css_variables())
        self._browse: Browse | None = None
        self._quiet = ExitStack()

    def get_driver_class(self) -> type[Driver]:
        """In a terminal of Unix the driver that is thrifty with bytes, else Textual's own."""
        chosen = super().get_driver_class()
        if chosen.__name__ == "LinuxDriver":
            from opd_tui.driver import ThriftyDriver

            return ThriftyDriver
        return chosen

    @property
    def ansi_theme(self) -> TerminalTheme:
        """As Textual has it, but looked up once for each theme: it is asked for with every line that is drawn."""
        if self._ansi_theme is None or self._ansi_theme[0] != self.theme:
            self._ansi_theme = self.theme, super().ansi_theme
        return self._ansi_theme[1]

    def get_line_filters(self) -> Sequence[LineFilter]:
        """But the one that gives the 16 colours that terminals define themselves their values: nothing here has such a colour."""
        return [one for one in super().get_line_filters() if not isinstance(one, ANSIToTruecolor)]

    def on_resize(self, event: events.Resize) -> None:
        """What the terminal shows is not known any more; and it may be too small, or not any more."""
        self._forget_terminal()
        self._mind_size(event.size)

    def _forget_terminal(self) -> None:
        forget = getattr(getattr(self._driver, "wire", None), "forget", None)
        if forget is not None:
            forget()

    def _mind_size(self, size: Size) -> None:
        """A sentence instead of panes that would only be in each other's way."""
        if is_too_small(size) and not isinstance(self.screen, TooSmall):
            self.push_screen(TooSmall())
        elif not is_too_small(size) and isinstance(self.screen, TooSmall):
            self.pop_screen()

    def exit(self, result: None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Leave; what is typed after that is for whoever comes next."""
        self._leaving = True
        super().exit(result, return_code, message)

    async def on_event(self, event: events.Event) -> None:
        """Everything but keys that come after the one that leaves. Screens hear of a key before anything is done about it."""
        if self._leaving and isinstance(event, events.InputEvent):
            return
        if isinstance(event, events.Key) and not event.is_forwarded:
            heard = getattr(self.screen, "heard", None)
            if heard is not None:
                heard()
            at_once = getattr(self.focused, "binds_every_key", False)  # where Textual would ask each pane around it first
            if at_once and (await self._check_bindings(event.key, priority=True) or await self._check_bindings(event.key)):
                return
        await super().on_event(event)

    def action_redraw(self) -> None:
        """Draw everything anew, whatever the terminal shows."""
        self._forget_terminal()
        self.refresh(repaint=True, layout=True)

    def _deliver(self, answer: Answer) -> None:
        self.post_message(self.Delivered(answer))

    @property
    def palette(self) -> Palette:
        """What this terminal can show, on the ground of the current theme."""
        depth = self._depth or depth_of(self.console.color_system, self.no_color)
        return Palette(depth, self.current_theme.dark)

    def get_default_screen(self) -> Screen[None]:
        """The first screen says what is being opened."""
        return Opening(self.path)

    def on_mount(self) -> None:
        """Open the store, once the first picture is on the screen."""
        self.theme_changed_signal.subscribe(self, lambda _: self._use_palette())
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        """Have the store opened, and get the first screen ready, in steps between which keys and resizes get their turn."""
        from opd_tui.screens.browse import Browse

        await sleep(0)
        wish = self._wish
        self._browse = Browse(self.loader, self.palette, wish.at, wish.teacher, wish.metric, self.settings)
        for path in self._browse.css_path:  # here, so that it is not in the way once there is something to draw
            self.stylesheet.read(path)
        await sleep(0)
        self.stylesheet.reparse()
        self.loader.start()

    @property
    def _ours(self) -> list[Browse | Guest]:
        """Browse, and Compare or Charts where it has opened one over itself."""
        from opd_tui.screens.guest import Guest

        guests = [screen for screen in self.screen_stack if isinstance(screen, Guest)]
        return [self._browse, *guests] if self._browse is not None and self._browse.is_attached else []

    def _use_palette(self) -> None:
        for screen in self._ours:
            screen.use(self.palette)

    def on_unmount(self) -> None:
        """No more answers; and where the store was left is kept, if it can be."""
        self.loader.stop()
        kept = self._browse.kept() if self._remember and self._browse is not None else None
        if kept is not None:
            from opd_tui.state import remember

            with suppress(OSError):
                remember(kept)

    async def on_opd_tui_delivered(self, message: Delivered) -> None:
        """Hand an answer to the screen; what no screen can go on with ends the app."""
        if not self.is_running:  # it ends: panes go one after the other, and answers still come
            return
        match message.answer:
            case Broken(error):
                raise error
            case Failed(request, sentence) if request == OPEN:
                self.failure = StoreError(sentence)
                self.exit(return_code=1)
            case answer:
                assert self._browse is not None  # it was made before the loader began
                if not self._browse.is_attached:
                    self._quiet.enter_context(self.batch_update())  # nothing is drawn until there is something to show
                    self._browse.held_back = True
                    if isinstance(self.screen, TooSmall):
                        self.pop_screen()
                    await self.push_screen(self._browse)
                    self._mind_size(self.size)
                for screen in self._ours:
                    screen.receive(answer)
                if self._browse.shows_something:
                    self._quiet.close()
                    self._browse.unveil()

    def get_system_commands(self, screen: Screen[None]) -> Iterable[SystemCommand]:
        """What the command palette offers: ours, and of Textual's own what has no key here."""
        yield from (command for ours in self._ours if ours is screen for command in ours.commands())
        yield SystemCommand("theme", "colours of the screen", self.action_change_theme)


def browse(
    path: str, *, at: str | None = None, teacher: str | None = None, metric: str | None = None, fresh: bool = False
) -> int:
    """Explore the store at `path` until the user leaves. Returns the exit code.

    `at` is QUESTION/ROLLOUT/TOKEN, `teacher` a teacher's id, `metric` what to colour by; what is not named is as it was left,
    but for `fresh`, which leaves bookmarks only. Raises ValueError for an unknown metric, SettingsError for settings that
    cannot be used, and StoreError, each with one sentence, where the store cannot be opened.
    """
    wish = Wish(at, teacher, _metric(metric))
    settings = load_settings()
    share_arenas()
    one_blas_thread()
    app = OpdTui(path, wish, settings=settings, restore=settings.restore, remember=settings.restore, fresh=fresh)
    with Runner(loop_factory=app.turns.loop) as runner:
        runner.run(app.run_async(mouse=settings.mouse))
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def _metric(key: str | None) -> Metric | None:
    return None if key is None else metric(key)
