"""`set heapglass …` and `show heapglass …`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import gdb

from heapglass.arguments import COLOURS, evaluate
from heapglass.errors import BadRequest, HeapglassError
from heapglass.glibc.releases import parse_version

from .expressions import evaluate_in_gdb
from .kept import kept

if TYPE_CHECKING:
    from heapglass.locate import Overrides

PREFIXES = ("auto", "heap")
_PREFIX_DOC = "Settings of heapglass: what it cannot find by itself, and how it shows things."


class _About(NamedTuple):
    """What a setting is. *check* gets what was typed, and raises HeapglassError to refuse it."""

    title: str
    said: str
    check: Callable[[str], object]
    choices: tuple[str, ...] = ()  # the texts that it can have, the first at the start

    def refuses(self, text: str) -> str:
        """Return why a text is unusable, empty if it is not."""
        try:
            if text:
                self.check(text)
        except HeapglassError as error:
            return f"{error} ({error.hint})" if error.hint else str(error)
        return ""


class _Prefix(gdb.Command):
    __doc__ = _PREFIX_DOC

    def __init__(self, verb: str, names: Iterable[str]) -> None:
        self._verb = verb
        self._names = tuple(names)
        super().__init__(f"{verb} heapglass", gdb.COMMAND_DATA, gdb.COMPLETE_COMMAND, True)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Show every setting, or say which there are."""
        names = f"settings: {', '.join(self._names)}"
        if line.strip():
            raise gdb.GdbError(f"heapglass has no setting {line.split()[0]!r} ({names})")
        if self._verb == "set":
            raise gdb.GdbError(f"set heapglass what? ({names})")
        for name in self._names:
            gdb.execute(f"show heapglass {name}")


class _Setting(gdb.Parameter):
    """A setting that holds text; the empty text means that it is not set.

    gdb keeps it for good; *about* is of the heapglass that was sourced last.
    """

    def __init__(self, name: str, about: _About) -> None:
        self.set_doc = f"Set {about.title}."
        self.show_doc = f"Show {about.title}."
        self.__doc__ = about.said
        self.about = about
        self._last = about.choices[0] if about.choices else ""
        kind = [gdb.PARAM_ENUM, list(about.choices)] if about.choices else [gdb.PARAM_STRING]
        super().__init__(f"heapglass {name}", gdb.COMMAND_DATA, *kind)
        self.value = self._last

    def get_set_string(self) -> str:
        """Check what was set; an unusable value is refused and the old one stays."""
        refused = self.about.refuses(self.text)
        if refused:
            self.value = self._last
            raise gdb.GdbError(refused)
        self._last = self.text
        return ""

    def get_show_string(self, value: str) -> str:
        """Say the value in words."""
        title = self.about.title
        return f"{title[0].upper()}{title[1:]}: {value or 'not set'}."

    @property
    def text(self) -> str:
        """The value, empty if it is not set."""
        return str(self.value or "").strip()


class Settings:
    """All settings. A command asks it for what is in force.

    Values from before heapglass was sourced again are kept.
    """

    def __init__(self, take_prefix: Callable[[], None]) -> None:
        about = _about(take_prefix)
        self._all: dict[str, _Setting] = kept("settings")
        if not self._all:
            for verb in ("set", "show"):
                _Prefix(verb, about)
        for name, said in about.items():
            if name in self._all:
                self._all[name].about = said  # gdb has it from the time before
            else:
                self._all[name] = _Setting(name, said)

    def _text(self, name: str) -> str:
        return self._all[name].text

    def overrides(self) -> Overrides:
        """Return what the user knows better than can be found."""
        main_arena, mp, tcaches = self._text("main-arena"), self._text("mp"), self._text("tcache")
        from heapglass.locate import Overrides  # with the first command, not with gdb

        return Overrides(
            glibc=self._text("glibc") or None,
            main_arena=evaluate_in_gdb(main_arena) if main_arena else None,
            mp=evaluate_in_gdb(mp) if mp else None,
            tcaches=_tcaches(tcaches) if tcaches else {},
        )

    @property
    def color(self) -> str:
        """The colours: auto, always or never."""
        return self._text("color")

    @property
    def prefix(self) -> str:
        """Whether `heap` is taken: auto or heap."""
        return self._text("prefix")

    @property
    def memory_limit(self) -> int | None:
        """Bytes of copies in memory, None for a quarter of what this machine has."""
        return _limit(self._text("memory-limit")) if self._text("memory-limit") else None

    @property
    def limit(self) -> int | None:
        """Rows of a listing, None for each command's own."""
        return _limit(self._text("limit")) if self._text("limit") else None


def _about(take_prefix: Callable[[], None]) -> dict[str, _About]:
    """Return every setting by name."""
    found = "A number or an expression, evaluated at each command; empty: it is found."

    def take(text: str) -> None:
        if text == "heap":
            take_prefix()

    return {
        "glibc": _About(
            "the release of glibc to read the heap as",
            "A release such as 2.36; empty: it is found.",
            parse_version,
        ),
        "main-arena": _About("the address of main_arena", found, evaluate_in_gdb),
        "mp": _About("the address of mp_", found, evaluate_in_gdb),
        "tcache": _About(
            "tcaches of threads",
            "THREAD=ADDR with kernel thread ids, several by comma; empty: they are found.",
            _tcaches,
        ),
        "color": _About("when to use colours", "auto follows gdb's style.", str, COLOURS),
        "limit": _About(
            "how many rows a listing shows",
            "A number; empty: each command's own. JSON and --all are not limited by it.",
            _limit,
        ),
        "memory-limit": _About(
            "how many bytes of a process are copied into memory",
            "A number; empty: a quarter of this machine's memory. More is read in windows.",
            _limit,
        ),
        "prefix": _About(
            "whether heapglass takes the prefix `heap`",
            "auto: if nobody else has it. heap: even if another extension has it.",
            take,
            PREFIXES,
        ),
    }


def _limit(text: str) -> int:
    number = evaluate(text)
    if number < 0:
        raise BadRequest(f"{text}: must not be negative")
    return number


def _tcaches(text: str) -> dict[int, int]:
    found = {}
    for pair in text.split(","):
        thread, equals, address = pair.partition("=")
        if not equals:
            raise BadRequest(f"{pair.strip()!r}: expected THREAD=ADDR", "such as 1234=0x5555555590")
        found[evaluate(thread.strip())] = evaluate_in_gdb(address.strip())
    return found
