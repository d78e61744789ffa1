"""Rules of paths that are cheap to make: what builds an address from a rule is compiled when an address is built.

Werkzeug compiles two functions for each rule at once, which for all of ours takes a twentieth of a start. Nothing here
builds addresses, pages name theirs; whoever does so one day gets them as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from werkzeug.routing import Rule as WerkzeugRule


class Rule(WerkzeugRule):
    """A path that requests are matched with."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_now = super()._compile_builder

        @cache
        def compiled() -> Callable[..., tuple[str, str]]:
            return compile_now(append_unknown)

        def build(rule: WerkzeugRule, **parts: Any) -> tuple[str, str]:
            return compiled()(rule, **parts)

        return build
