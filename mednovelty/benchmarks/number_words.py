"""Numbers as tables have them."""

from __future__ import annotations

import math


def number_words(value: float, *, sign: bool = False) -> str:
    """Return a share with three digits, without the 0 before the point, as the tables have it.

    Examples:
        >>> number_words(0.974), number_words(1.0), number_words(-0.0201), number_words(14.18)
        ('.974', '1.000', '-.020', '14.18')
        >>> number_words(0.05, sign=True)
        '+.050'
    """
    if math.isnan(value):
        return "nan"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    if abs(value) >= 10:
        return f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


__all__ = ["number_words"]
