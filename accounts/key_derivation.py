"""The key that stands in for a password, derived here for those who send the password itself.

    salt = BLAKE2b-128(first 6 characters of the password, username, domain)
    key  = base64url(Argon2id(password, salt)), cut to 64 characters

It is the key that a client derives on its own device, so both forms log in to the same account.
"""

from __future__ import annotations

import base64
from typing import Any

from db import NotAnswering
from foundation.crypto import DerivedKeyHasher, blake2b_128

PREFIX_CHARACTERS = 6  # of the password, as Unicode code points
TIME_COST, MEMORY_KIB, PARALLELISM, HASH_BYTES = 2, 1953, 1, 64
KEY_CHARACTERS = 64


class KeyDeriver:
    """Derives keys as clients of this deployment do."""

    def __init__(self, hasher: DerivedKeyHasher, domain: str | None) -> None:
        """domain: a part of every salt; None if it is told by `know_domain`, once the database has answered."""
        self._hasher = hasher
        self._known = domain

    def know_domain(self, domain: str) -> None:
        """Learn the domain."""
        self._known = domain

    @property
    def _domain(self) -> str:
        if self._known is None:
            raise NotAnswering("the database, which has the domain of derived keys, has not answered yet")
        return self._known

    @property
    def parameters(self) -> dict[str, Any]:
        """What a client has to know, as JSON. Clients refuse anything weaker, and any other value makes other keys."""
        return {
            "algorithm": "argon2id",
            "time_cost": TIME_COST,
            "memory_kib": MEMORY_KIB,
            "parallelism": PARALLELISM,
            "hash_len": HASH_BYTES,
            "salt": {"algorithm": "blake2b", "digest_bytes": 16, "password_prefix_characters": PREFIX_CHARACTERS},
            "encoding": "base64url",
            "length": KEY_CHARACTERS,
            "domain": self._domain,
        }

    def derive(self, username: str, password: str) -> str:
        """The 64 characters that stand in for a password; some 3 ms of a core, among the hasher's.

        Raises Busy; NotAnswering before the domain is known, here and above.
        """
        salt = blake2b_128(password[:PREFIX_CHARACTERS] + username + self._domain)
        raw = self._hasher.derive(password, salt, TIME_COST, MEMORY_KIB, PARALLELISM, HASH_BYTES)
        return base64.urlsafe_b64encode(raw).decode()[:KEY_CHARACTERS]
