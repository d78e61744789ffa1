"""Puts the client's folder, which is no package, on the import path; offers the shared key vectors and a gateway."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

sys.path.insert(0, str(Path(__file__).parents[2] / "clients" / "python"))


@pytest.fixture(scope="session")
def vectors() -> list[dict[str, str]]:
    return json.loads(Path(__file__).with_name("kdf_vectors.json").read_text("utf-8"))["vectors"]


@pytest.fixture(scope="session")
def running(start_for_all, stand_in, pool_keys) -> Gateway:
    """A gateway in front of the stand-in."""
    keys = ",".join(key["key"] for key in pool_keys)
    # A comment is what tells that somebody has gone who waited for a stalled stream.
    return start_for_all(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=keys, KEEPALIVE_SECONDS=1)


@pytest.fixture
def published() -> dict:
    """What GET /api/auth/kdf answers; a test may change its copy."""
    return {
        "algorithm": "argon2id",
        "time_cost": 2,
        "memory_kib": 1953,
        "parallelism": 1,
        "hash_len": 64,
        "salt": {"algorithm": "blake2b", "digest_bytes": 16, "password_prefix_characters": 6},
        "encoding": "base64url",
        "length": 64,
        "domain": "openrouter-proxy-access-key-v1",
    }
