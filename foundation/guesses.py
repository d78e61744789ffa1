"""How many guesses a password or a secret withstands, as zxcvbn estimates it: by lists of leaked passwords, names and
words, keyboards, dates, repeats and sequences, all of them offline."""

from __future__ import annotations

from collections.abc import Sequence

MOST_CHARACTERS = 72  # are looked at: more take time and make no weak one of a strong one


def guesses_log10(text: str, known: Sequence[str] = ()) -> float:
    """The power of ten of the guesses that an attacker needs. known: what is tried first, such as the owner's name."""
    from zxcvbn import zxcvbn  # here, because its lists take 14 MB, and few processes ever ask

    return float(zxcvbn(text[:MOST_CHARACTERS], list(known))["guesses_log10"]) if text else 0.0
