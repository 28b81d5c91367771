"""Text that somebody else wrote, made safe to show: in logs, on terminals, in tables."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Return text with control characters and stray bytes as ``\xNN``, so that no name can forge a line.

    Args:
        text: Any text; lone surrogates, as in names that are not UTF-8, are shown too.
        keep: Control characters that stay as they are.

    Examples:
        >>> print(printable("sub-01\nok"))
        sub-01\x0aok
    """
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def cell(text: str) -> str:
    r"""Return text as one cell of a table: printable, and quoted where a spreadsheet would see a formula.

    Examples:
        >>> print(cell("=1+1"), cell("two\nlines"), cell("-3.5"))
        '=1+1 two\x0alines -3.5
    """
    shown = printable(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) and not _is_number(shown) else shown


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is not UTF-8, as Python keeps it in file names.
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
