"""`set heapglass …` and `show heapglass …`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gdb

from heapglass.arguments import COLOURS, evaluate
from heapglass.errors import BadRequest, HeapglassError
from heapglass.glibc.releases import parse_version
from heapglass.locate import Overrides

from .expressions import evaluate_in_gdb

PREFIXES = ("auto", "heap")
_PREFIX_DOC = "Settings of heapglass: what it cannot find by itself, and how it shows things."


class _Prefix(gdb.Command):
    __doc__ = _PREFIX_DOC

    def __init__(self, verb: str, names: Sequence[str]) -> None:
        self._verb = verb
        self._names = names
        super().__init__(f"{verb} heapglass", gdb.COMMAND_DATA, gdb.COMPLETE_COMMAND, True)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Show every setting, or say which there are."""
        if line.strip():
            raise gdb.GdbError(
                f"heapglass has no setting {line.split()[0]!r} (settings: {', '.join(self._names)})"
            )
        if self._verb == "set":
            raise gdb.GdbError(f"set heapglass what? (settings: {', '.join(self._names)})")
        for name in self._names:
            gdb.execute(f"show heapglass {name}")


class _Setting(gdb.Parameter):
    """A setting that holds text; the empty text means that it is not set.

    *check* is called with what was typed, and raises HeapglassError to refuse it. A value from
    before heapglass was sourced again is kept. *choices*: the texts that it can have.
    """

    def __init__(
        self,
        name: str,
        title: str,
        said: str,
        check: Callable[[str], object],
        choices: Sequence[str] = (),
    ) -> None:
        self.set_doc = f"Set {title}."
        self.show_doc = f"Show {title}."
        self.__doc__ = said
        self._title = title
        self._check = check
        self._last = _value_of(f"heapglass {name}") or (choices[0] if choices else "")
        if choices:
            super().__init__(f"heapglass {name}", gdb.COMMAND_DATA, gdb.PARAM_ENUM, list(choices))
        else:
            super().__init__(f"heapglass {name}", gdb.COMMAND_DATA, gdb.PARAM_STRING)
        self.value = self._last

    def get_set_string(self) -> str:
        """Check what was set; an unusable value is refused and the old one stays."""
        text = self.text
        try:
            if text:
                self._check(text)
        except HeapglassError as error:
            self.value = self._last
            hint = f" ({error.hint})" if error.hint else ""
            raise gdb.GdbError(f"{error}{hint}") from error
        self._last = text
        return ""

    def get_show_string(self, value: str) -> str:
        """Say the value in words."""
        return f"{self._title[0].upper()}{self._title[1:]}: {value or 'not set'}."

    @property
    def text(self) -> str:
        """The value, empty if it is not set."""
        return str(self.value or "").strip()


def _value_of(name: str) -> str:
    try:
        return str(gdb.parameter(name) or "").strip()
    except RuntimeError:
        return ""  # it is the first time that heapglass is sourced


class Settings:
    """All settings. A command asks it for what is in force."""

    def __init__(self, take_prefix: Callable[[], None]) -> None:
        names = ("glibc", "main-arena", "mp", "tcache", "color", "limit", "prefix")
        for verb in ("set", "show"):
            _Prefix(verb, names)
        self._glibc = _Setting(
            "glibc",
            "the release of glibc to read the heap as",
            "A release such as 2.36; empty: it is found.",
            parse_version,
        )
        self._main_arena = _Setting(
            "main-arena",
            "the address of main_arena",
            "A number or an expression, evaluated at each command; empty: it is found.",
            evaluate_in_gdb,
        )
        self._mp = _Setting(
            "mp",
            "the address of mp_",
            "A number or an expression, evaluated at each command; empty: it is found.",
            evaluate_in_gdb,
        )
        self._tcache = _Setting(
            "tcache",
            "tcaches of threads",
            "THREAD=ADDR with kernel thread ids, several by comma; empty: they are found.",
            _tcaches,
        )
        self._color = _Setting(
            "color", "when to use colours", "auto follows gdb's style.", str, COLOURS
        )
        self._limit = _Setting(
            "limit",
            "how many rows a listing shows",
            "A number; empty: each command's own. JSON and --all are not limited by it.",
            _limit,
        )
        self._prefix = _Setting(
            "prefix",
            "whether heapglass takes the prefix `heap`",
            "auto: if nobody else has it. heap: even if another extension has it.",
            lambda text: take_prefix() if text == "heap" else None,
            PREFIXES,
        )

    def overrides(self) -> Overrides:
        """Return what the user knows better than can be found."""
        return Overrides(
            glibc=self._glibc.text or None,
            main_arena=evaluate_in_gdb(self._main_arena.text) if self._main_arena.text else None,
            mp=evaluate_in_gdb(self._mp.text) if self._mp.text else None,
            tcaches=_tcaches(self._tcache.text) if self._tcache.text else {},
        )

    @property
    def color(self) -> str:
        """The colours: auto, always or never."""
        return self._color.text

    @property
    def limit(self) -> int | None:
        """Rows of a listing, None for each command's own."""
        return _limit(self._limit.text) if self._limit.text else None


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
