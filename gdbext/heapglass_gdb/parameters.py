"""`set heapglass …` and `show heapglass …`."""

from __future__ import annotations

from collections.abc import Callable

import gdb

from heapglass.arguments import COLOURS, evaluate
from heapglass.errors import BadRequest, HeapglassError
from heapglass.glibc.releases import parse_version
from heapglass.locate import Overrides

_PREFIX_DOC = "Settings of heapglass: what it cannot find by itself, and how it shows things."


class _Prefix(gdb.Command):
    __doc__ = _PREFIX_DOC

    def __init__(self, verb: str) -> None:
        super().__init__(f"{verb} heapglass", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


class _Setting(gdb.Parameter):
    """A setting that holds text; the empty text means that it is not set."""

    def __init__(self, name: str, title: str, said: str, check: Callable[[str], object]) -> None:
        self.set_doc = f"Set {title}."
        self.show_doc = f"Show {title}."
        self.__doc__ = said
        self._title = title
        self._check = check
        self._last = ""
        super().__init__(f"heapglass {name}", gdb.COMMAND_DATA, gdb.PARAM_STRING)
        self.value = ""

    def get_set_string(self) -> str:
        """Check what was set; an unusable value is refused and the old one stays."""
        text = str(self.value or "").strip()
        try:
            if text:
                self._check(text)
        except HeapglassError as error:
            self.value = self._last
            raise gdb.GdbError(f"{error}") from error
        self._last = text
        return ""

    def get_show_string(self, value: str) -> str:
        """Say the value in words."""
        return f"{self._title[0].upper()}{self._title[1:]}: {value or 'not set'}."

    @property
    def text(self) -> str:
        """The value, empty if it is not set."""
        return str(self.value or "").strip()


class Settings:
    """All settings. Made once; a command asks it for what is in force."""

    def __init__(self, take_prefix: Callable[[str], None]) -> None:
        for verb in ("set", "show"):
            _Prefix(verb)
        self._glibc = _Setting(
            "glibc",
            "the release of glibc to read the heap as",
            "A release such as 2.36; empty: it is found.",
            parse_version,
        )
        self._main_arena = _Setting(
            "main-arena", "the address of main_arena", "Empty: it is found.", _address
        )
        self._mp = _Setting("mp", "the address of mp_", "Empty: it is found.", _address)
        self._tcache = _Setting(
            "tcache",
            "tcaches of threads",
            "THREAD=ADDR with kernel thread ids, several by comma; empty: they are found.",
            _tcaches,
        )
        self._color = _Setting(
            "color", "when to use colours", "auto, always or never; auto follows gdb.", _colour
        )
        self._limit = _Setting(
            "limit", "how many rows a listing shows", "Empty: each command's own.", evaluate
        )
        self._prefix = _Setting(
            "prefix",
            "the short prefix of the commands",
            "`heap` takes that prefix even if another extension has it.",
            take_prefix,
        )

    def overrides(self) -> Overrides:
        """Return what the user knows better than can be found."""
        return Overrides(
            glibc=self._glibc.text or None,
            main_arena=_address(self._main_arena.text) if self._main_arena.text else None,
            mp=_address(self._mp.text) if self._mp.text else None,
            tcaches=_tcaches(self._tcache.text) if self._tcache.text else {},
        )

    @property
    def color(self) -> str:
        """The colours: auto, always or never."""
        return self._color.text or "auto"

    @property
    def limit(self) -> int | None:
        """Rows of a listing, None for each command's own."""
        return evaluate(self._limit.text) if self._limit.text else None


def _address(text: str) -> int:
    """Return the address that an expression means."""
    try:
        return evaluate(text)
    except HeapglassError:
        pass
    try:
        return int(gdb.parse_and_eval(text))
    except gdb.error as error:
        raise BadRequest(f"{text!r}: {error}") from error


def _tcaches(text: str) -> dict[int, int]:
    found = {}
    for pair in text.split(","):
        thread, equals, address = pair.partition("=")
        if not equals:
            raise BadRequest(f"{pair!r}: expected THREAD=ADDR")
        found[evaluate(thread.strip())] = _address(address.strip())
    return found


def _colour(text: str) -> str:
    if text not in COLOURS:
        raise BadRequest(f"{text!r}: expected one of {', '.join(COLOURS)}")
    return text
