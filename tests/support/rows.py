"""Tables whose rows are tried in one test: a rule that a thousand rows hold costs no thousand tests.

For tests that leave nothing behind: what fixtures give is shared by all rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Callable[[Any], Any] | Iterable[Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As pytest.mark.parametrize, but one test: every row is tried, and all that fail are told together."""
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    sets = [ParameterSet.extract_from(row, force_tuple=len(wanted) == 1) for row in rows]
    assert sets, "a table without rows guards nothing"
    assert not any(one.marks for one in sets), "a mark is for a test, not for a row"
    table = [one.values for one in sets]
    if callable(ids):
        ids = ["-".join(str(ids(value)) for value in values) for values in table]
    labels = [str(label) for label in ids] if ids else [one.id or repr(one.values) for one in sets]

    def declare(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(**fixtures: Any) -> None:
            failed = []
            for label, row in zip(labels, table, strict=True):
                try:
                    test(**dict(zip(wanted, row, strict=True)), **fixtures)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - told below
                    told = error if isinstance(error, Exception) else AssertionError(str(error))
                    told.add_note(f"in the row {label}")
                    failed.append(told)
            if failed:
                raise ExceptionGroup(f"{len(failed)} of {len(table)} rows fail", failed)

        run.__signature__ = _without(test, wanted)  # type: ignore[attr-defined] - what pytest looks for fixtures in
        return run

    return declare


def _without(test: Callable[..., None], names: Sequence[str]) -> inspect.Signature:
    signature = inspect.signature(test)
    assert set(names) <= set(signature.parameters), f"{test.__name__} takes no {names}"
    kept = [parameter for name, parameter in signature.parameters.items() if name not in names]
    return signature.replace(parameters=kept)
