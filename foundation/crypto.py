"""Every cryptographic primitive that the service uses; the only file that imports `cryptography` and `argon2`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import argon2
import orjson
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from foundation.errors import Busy

# OWASP's minimum for Argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
ARGON2_TIME_COST, ARGON2_MEMORY_KIB, ARGON2_PARALLELISM = 2, 19456, 1


class WrongDerivedKey(Exception):
    """The derived key is not the one that was registered."""


class SealBroken(Exception):
    """A ciphertext does not open here: another key, another place, or damage."""


def keyed_name(key: bytes, name: str) -> str:
    """A name as it is stored: keyed BLAKE2b-256, 64 hex characters. Without the key nobody can try names."""
    return hashlib.blake2b(name.encode(), key=key, digest_size=32, person=b"orp-username-v1").hexdigest()


def keyed_token(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 of these parts, none of which holds a NUL, as 43 URL-safe characters."""
    mac = hmac.digest(key, "\0".join(parts).encode(), "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def webhook_signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """The `webhook-signature` of a body by Standard Webhooks. secret: `whsec_` and the key in base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def sha256_hex(text: str) -> str:
    """SHA-256 in lower-case hex. OpenRouter names a key by this hash of the key's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def blake2b_128(text: str) -> bytes:
    """BLAKE2b with a digest of 16 bytes: the salt of keys that are derived from passwords."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def pkce_challenge(verifier: str) -> str:
    """What a verifier is announced by (RFC 7636, S256): its SHA-256 as unpadded base64url."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def same(a: str, b: str) -> bool:
    """Compare in constant time; texts of any alphabet (hmac.compare_digest alone raises on non-ASCII text)."""
    return hmac.compare_digest(a.encode(), b.encode())


def new_token() -> str:
    """256 random bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def new_id() -> str:
    """128 random bits as 32 hex characters."""
    return secrets.token_hex(16)


class DerivedKeyHasher:
    """Argon2id over derived keys, and over passwords to derive them, a bounded number at a time.

    Each hash of a key takes 19 MiB and about 25 ms of a core: unbounded, a few hundred logins at once would take the
    memory and every thread. `permits` run together, `queue` more wait up to `wait_seconds`, the rest get Busy at once;
    together they must be fewer than the server has threads.
    """

    def __init__(self, permits: int | None = None, queue: int = 32, wait_seconds: float = 2.0) -> None:
        permits = permits or os.cpu_count() or 1
        self._hasher = argon2.PasswordHasher(ARGON2_TIME_COST, ARGON2_MEMORY_KIB, ARGON2_PARALLELISM)
        self._running = threading.BoundedSemaphore(permits)
        self._waiting = threading.BoundedSemaphore(permits + queue)
        self._wait_seconds = wait_seconds
        # What an unknown user's key is compared with, so that "no such user" takes as long as "wrong key".
        self._nobody = _hash_of_nothing()

    @contextmanager
    def _permit(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Busy("Too many log-ins at this moment; try again in a second")
        try:
            if not self._running.acquire(timeout=self._wait_seconds):
                raise Busy("Too many log-ins at this moment; try again in a second")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._waiting.release()

    def hash(self, derived_key: str) -> str:
        """An Argon2id PHC string. Raises Busy."""
        with self._permit():
            return self._hasher.hash(derived_key)

    def verify(self, stored: str | None, derived_key: str) -> None:
        """Check a key against its stored hash, or against nobody's. Raises WrongDerivedKey or Busy."""
        with self._permit():
            try:
                self._hasher.verify(stored or self._nobody, derived_key)
            except (VerifyMismatchError, InvalidHashError):  # the latter of accounts that have no key
                raise WrongDerivedKey from None
        if stored is None:
            raise WrongDerivedKey

    def derive(
        self, password: str, salt: bytes, time_cost: int, memory_kib: int, parallelism: int, length: int
    ) -> bytes:
        """Argon2id of a password in so many bytes. Raises Busy."""
        with self._permit():
            return hash_secret_raw(password.encode(), salt, time_cost, memory_kib, parallelism, length, Type.ID)

    def is_outdated(self, stored: str) -> bool:
        """True if the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)


def _hash_of_nothing() -> str:
    """A hash with today's parameters that no text is known to have: random bytes, for which nothing is hashed."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    parameters = f"m={ARGON2_MEMORY_KIB},t={ARGON2_TIME_COST},p={ARGON2_PARALLELISM}"
    return f"$argon2id$v={ARGON2_VERSION}${parameters}${salt}${digest}"


class Envelopes:
    """Fernet encryption of database values, each bound to its table, column and row.

    Fernet has no associated data: a ciphertext moved to another row would open there. So the place is encrypted
    with the value and compared on opening. keys: Fernet keys, newest first; the first seals, all open.
    fingerprints: for each key 8 hex characters that name it and tell nothing about it.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernets = [Fernet(key) for key in keys]
        self._newest = self._fernets[0]
        self.fingerprints = [sha256_hex(f"encryption-key {key}")[:8] for key in keys]

    def seal(self, table: str, column: str, row: int | str, value: str) -> str:
        """The ciphertext to store at this place."""
        return self._newest.encrypt(orjson.dumps([table, column, str(row), value])).decode()

    def open(self, table: str, column: str, row: int | str, sealed: str | None) -> str:
        """The value that was sealed at this place. Raises SealBroken."""
        return self._open(table, column, row, sealed)[1]

    def sealed_by(self, table: str, column: str, row: int | str, sealed: str | None) -> int:
        """Which key opens what was sealed at this place: its position in `keys`. Raises SealBroken."""
        return self._open(table, column, row, sealed)[0]

    def _open(self, table: str, column: str, row: int | str, sealed: str | None) -> tuple[int, str]:
        for position, fernet in enumerate(self._fernets):
            try:
                *place, value = orjson.loads(fernet.decrypt(sealed or ""))
            except (InvalidToken, ValueError):
                continue
            if place != [table, column, str(row)]:
                raise SealBroken(f"{table}.{column} of row {row} holds a ciphertext of another place")
            return position, str(value)
        raise SealBroken(f"{table}.{column} of row {row} does not open with ENCRYPTION_KEY")


class PassphraseSeal:
    """Seals the pieces of one file under a passphrase, in order: ChaCha20-Poly1305 with the STREAM construction.

    The key is Argon2id of the passphrase and of the file's own salt. A piece opens only in its place, and the last one
    only as the last one: what is cut off, moved or repeated is noticed.
    """

    SALT_BYTES = 16
    TIME_COST, MEMORY_KIB = 4, 128 * 1024  # some tenths of a second: made once for a file, guessed at offline

    def __init__(self, passphrase: str, salt: bytes) -> None:
        if len(salt) != self.SALT_BYTES:
            raise SealBroken("the salt is cut")
        self.salt = salt
        key = hash_secret_raw(passphrase.encode(), salt, self.TIME_COST, self.MEMORY_KIB, 1, 32, Type.ID)
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0

    @classmethod
    def new(cls, passphrase: str) -> PassphraseSeal:
        """For a new file."""
        return cls(passphrase, secrets.token_bytes(cls.SALT_BYTES))

    def _nonce(self, is_last: bool) -> bytes:
        self._number += 1
        return self._number.to_bytes(11) + bytes([is_last])

    def seal(self, piece: bytes, is_last: bool) -> bytes:
        """The next piece, sealed."""
        return self._cipher.encrypt(self._nonce(is_last), piece, None)

    def open(self, sealed: bytes, is_last: bool) -> bytes:
        """The next piece. Raises SealBroken."""
        try:
            return self._cipher.decrypt(self._nonce(is_last), sealed, None)
        except InvalidTag:
            raise SealBroken("a piece does not open: another passphrase, another place, or damage") from None
