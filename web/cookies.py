"""Cookies: of the pages' sessions, and to know a browser again that began a log-in elsewhere. None is for the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flask import Response, request

from web.http import services


@dataclass(frozen=True)
class Cookie:
    """A cookie by its name, for the whole host and read by no script; over https alone, but in development."""

    plain_name: str

    @property
    def _is_secure(self) -> bool:
        config = services().config
        return config.production or config.public_url.startswith("https://")

    @property
    def name(self) -> str:
        """With the prefix by which browsers take it from no other host and over no other scheme, if that is https."""
        return f"__Host-{self.plain_name}" if self._is_secure else self.plain_name

    def read(self) -> str:
        """What this request's browser has; empty for none."""
        return request.cookies.get(self.name, "")

    def give(self, response: Response, value: str, life: timedelta) -> None:
        """Lax, not Strict: the way back is a navigation from another site."""
        response.set_cookie(
            self.name, value, max_age=life, path="/", secure=self._is_secure, httponly=True, samesite="Lax"
        )

    def take(self, response: Response) -> None:
        """Have the browser forget it."""
        self.give(response, "", timedelta(0))
