"""Text from a target may be anything: what could steer a terminal is shown as an escape."""

from __future__ import annotations

import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, surrogates, separators


def visible(text: str) -> str:
    r"""Return *text* with every control or invisible character as `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    Nothing is left that moves a cursor, hides text or turns its direction.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _UNSAFE else char for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
