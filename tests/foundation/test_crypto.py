"""Primitives: names under a key, a bounded number of Argon2id hashes at once, envelopes that open in one place only."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import argon2
import pytest
from argon2 import extract_parameters
from cryptography.fernet import Fernet
from hypothesis import assume, given
from hypothesis import strategies as st

from foundation.crypto import (
    DerivedKeyHasher,
    Envelopes,
    PassphraseSeal,
    SealBroken,
    WrongDerivedKey,
    keyed_name,
    new_id,
    new_token,
    pkce_challenge,
    same,
    sha256_hex,
)
from foundation.errors import Busy
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import wait_for

OTHER_KEY = Fernet.generate_key().decode()
KEY = "q8Zr2mVtXw5LkYp0NsHd7BfJc3GuEa9RiToQ4lKxSVyABWBKeaJ9qGdbgdMsC_WA"
texts = st.text(st.characters(codec="utf-8"))


# ── names, hashes, random texts


def test_a_name_is_64_hex_characters_that_tell_nothing_without_the_key():
    hashed = keyed_name(b"k" * 32, "alice@example.com")
    assert re.fullmatch(r"[0-9a-f]{64}", hashed)
    assert hashed == keyed_name(b"k" * 32, "alice@example.com")
    assert hashed != keyed_name(b"l" * 32, "alice@example.com")
    assert hashed != hashlib.blake2b(b"alice@example.com", digest_size=32).hexdigest()


@given(texts, texts)
def test_different_names_have_different_hashes(one, other):
    assert (keyed_name(b"k" * 32, one) == keyed_name(b"k" * 32, other)) == (one == other)


def test_sha256_is_lower_case_hex_of_the_text_in_utf_8():
    assert sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_hex("é") == hashlib.sha256("é".encode()).hexdigest()


def test_a_verifier_is_announced_as_rfc_7636_does_in_its_appendix():
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert pkce_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@given(texts, texts)
def test_texts_of_any_alphabet_are_compared(one, other):
    assert same(one, one)
    assert same(one, other) == (one == other)


def test_random_texts_differ_and_have_their_size():
    assert len({new_token() for _ in range(1000)} | {new_id() for _ in range(1000)}) == 2000
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", new_token())
    assert re.fullmatch(r"[0-9a-f]{32}", new_id())


# ── Argon2id


@pytest.fixture(scope="module")
def hasher() -> DerivedKeyHasher:
    return DerivedKeyHasher(permits=2)


@pytest.fixture(scope="module")
def stored(hasher: DerivedKeyHasher) -> str:
    return hasher.hash(KEY)


def test_a_hash_names_its_algorithm_and_parameters(stored):
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert KEY not in stored


def test_two_hashes_of_one_key_differ(hasher, stored):
    assert hasher.hash(KEY) != stored


def test_the_registered_key_verifies_and_any_other_does_not(hasher, stored):
    hasher.verify(stored, KEY)
    for wrong in (KEY[:-1], KEY + "A", KEY.swapcase(), "", stored):
        with pytest.raises(WrongDerivedKey):
            hasher.verify(stored, wrong)


def test_nobodys_hash_verifies_with_no_key(hasher):
    for stored in (None, ""):
        with pytest.raises(WrongDerivedKey):
            hasher.verify(stored, KEY)


def test_nobodys_hash_has_the_form_and_the_parameters_of_everybodys(hasher, stored):
    nobodys = hasher._nobody
    assert len(nobodys) == len(stored)
    assert extract_parameters(nobodys) == extract_parameters(stored)
    assert nobodys != DerivedKeyHasher()._nobody


def test_an_unknown_user_costs_the_same_hash_as_a_wrong_key(hasher, stored):
    """Not the clock's word, which other load can bend: the processor time of this thread, interleaved."""
    spent = {"unknown": 0.0, "wrong": 0.0}
    for _ in range(8):
        for who, hashed in (("unknown", None), ("wrong", stored)):
            begun = time.thread_time()
            with pytest.raises(WrongDerivedKey):
                hasher.verify(hashed, KEY[::-1])
            spent[who] += time.thread_time() - begun
    assert min(spent.values()) > 0.02
    assert 0.5 < spent["unknown"] / spent["wrong"] < 2


@pytest.mark.parametrize("changed", [{"time_cost": 3}, {"memory_cost": 9728}, {"parallelism": 2}, {"hash_len": 16}])
def test_a_hash_of_other_parameters_is_outdated_and_still_verifies(hasher, stored, changed):
    parameters = {"time_cost": 2, "memory_cost": 19456, "parallelism": 1} | changed
    other = argon2.PasswordHasher(**parameters).hash(KEY)
    hasher.verify(other, KEY)
    assert hasher.is_outdated(other)
    assert not hasher.is_outdated(stored)


def test_a_password_is_hashed_as_asked_for_and_each_byte_of_it_and_of_the_salt_counts(hasher):
    one = hasher.derive("pé", b"s" * 16, 2, 1953, 1, 16)
    others = [
        ("pe", b"s" * 16, 2, 1953, 1, 16),
        ("pé", b"s" * 15 + b"t", 2, 1953, 1, 16),
        ("pé", b"s" * 16, 3, 1953, 1, 16),
    ]
    others += [
        ("pé", b"s" * 16, 2, 1954, 1, 16),
        ("pé", b"s" * 16, 2, 1953, 2, 16),
        ("pé\0", b"s" * 16, 2, 1953, 1, 16),
    ]
    assert len({one, *(hasher.derive(*other) for other in others)}) == 7
    assert len(hasher.derive("pé", b"s" * 16, 2, 1953, 1, 64)) == 64


class Gauge:
    """How many threads are inside Argon2 at once. It counts and hands on to the real thing."""

    def __init__(self, real: argon2.PasswordHasher) -> None:
        self.real, self.lock, self.inside, self.most = real, threading.Lock(), 0, 0

    def __getattr__(self, name: str):
        def counted(*arguments: object) -> object:
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            try:
                return getattr(self.real, name)(*arguments)
            finally:
                with self.lock:
                    self.inside -= 1

        return counted


def gauge_of(hasher: DerivedKeyHasher) -> Gauge:
    hasher._hasher = Gauge(hasher._hasher)
    return hasher._hasher


@pytest.mark.parametrize("permits", [1, 3])
def test_no_more_hashes_run_together_than_permitted(permits):
    hasher = DerivedKeyHasher(permits=permits, queue=64, wait_seconds=60)
    gauge = gauge_of(hasher)
    with ThreadPoolExecutor(16) as threads:
        hashes = list(threads.map(hasher.hash, [KEY] * 12))
    assert len(set(hashes)) == 12
    assert gauge.most == permits


def test_who_finds_the_queue_full_is_told_at_once():
    """At once: while those before are still there, who go only when all have been told."""
    hasher = DerivedKeyHasher(permits=1, queue=2, wait_seconds=600)
    gauge = gauge_of(hasher)
    refused = threading.Semaphore(0)

    def try_to_hash(_: int) -> None:
        try:
            hasher.hash(KEY)
        except Busy as busy:
            assert busy.headers == {"Retry-After": "1"}
            refused.release()

    with ThreadPoolExecutor(40) as threads:
        with hasher._permit():
            tries = [threads.submit(try_to_hash, number) for number in range(40)]
            assert all(refused.acquire(timeout=60) for _ in range(38))
        for one in tries:
            one.result()
    assert not refused.acquire(blocking=False)
    assert gauge.most == 1


def test_who_waits_too_long_in_the_queue_is_told():
    hasher = DerivedKeyHasher(permits=1, queue=2, wait_seconds=0.05)
    with hasher._permit():
        begun = time.monotonic()
        with pytest.raises(Busy):
            hasher.hash(KEY)
    assert time.monotonic() - begun > 0.04


def test_permits_return_after_wrong_keys_refusals_and_faults():
    hasher = DerivedKeyHasher(permits=1, queue=0, wait_seconds=0.05)
    for _ in range(3):
        with pytest.raises(WrongDerivedKey):
            hasher.verify(None, KEY)
        with hasher._permit(), pytest.raises(Busy):
            hasher.hash(KEY)
        with pytest.raises(WrongDerivedKey):
            hasher.verify("$damaged", KEY)
        with pytest.raises(UnicodeEncodeError):
            hasher.derive("\ud800", b"s" * 16, 2, 1953, 1, 64)
    assert hasher.hash(KEY)


def test_a_derivation_keeps_its_permit_until_it_is_done():
    hasher = DerivedKeyHasher(permits=1, queue=0)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(hasher.derive, "password", b"s" * 16, 1000, 1953, 1, 64)
        wait_for(lambda: not hasher._waiting._value)
        with pytest.raises(Busy):
            hasher.hash(KEY)
    assert len(running.result()) == 64
    assert hasher.hash(KEY)


# ── envelopes


@pytest.fixture(scope="module")
def sealer() -> Envelopes:
    return Envelopes([ENCRYPTION_KEY])


@given(texts, texts, st.integers() | texts, texts)
def test_what_is_sealed_opens_at_its_place(sealer, table, column, row, value):
    sealed = sealer.seal(table, column, row, value)
    assert sealer.open(table, column, row, sealed) == value
    assert len(value) < 8 or value not in sealed


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_what_is_sealed_opens_at_no_other_place(sealer, place, other):
    assume(place != other)
    sealed = sealer.seal(*place, "value")
    with pytest.raises(SealBroken, match="another place"):
        sealer.open(*other, sealed)


@pytest.mark.parametrize("place", [("tokens", "api_key", 1), ("api_keys", "name", 1), ("api_keys", "api_key", 2)])
def test_a_ciphertext_moved_to_another_table_column_or_row_does_not_open(sealer, place):
    sealed = sealer.seal("api_keys", "api_key", 1, "value")
    with pytest.raises(SealBroken) as raised:
        sealer.open(*place, sealed)
    assert "value" not in str(raised.value)
    assert sealed not in str(raised.value)


SEALED = Envelopes([ENCRYPTION_KEY]).seal("t", "c", 1, "value")


@given(st.integers(0, len(SEALED.rstrip("=")) - 2), st.sampled_from("AZaz09-_!é\0"))  # the last one has unused bits
def test_no_changed_character_opens(sealer, position, changed):
    assume(changed != SEALED[position])
    with pytest.raises(SealBroken):
        sealer.open("t", "c", 1, SEALED[:position] + changed + SEALED[position + 1 :])


@pytest.mark.parametrize("damaged", [None, "", "gAAAA", "x" * 200, "é", "\ud800", "{}"])
def test_what_was_never_sealed_does_not_open(sealer, damaged):
    with pytest.raises(SealBroken):
        sealer.open("t", "c", 1, damaged)


def test_another_key_does_not_open_it(sealer):
    with pytest.raises(SealBroken, match="does not open with ENCRYPTION_KEY"):
        Envelopes([OTHER_KEY]).open("t", "c", 1, sealer.seal("t", "c", 1, "value"))


def test_an_old_key_opens_what_it_sealed_and_the_newest_seals(sealer):
    both = Envelopes([OTHER_KEY, ENCRYPTION_KEY])
    assert both.open("t", "c", 1, sealer.seal("t", "c", 1, "value")) == "value"
    sealed = both.seal("t", "c", 1, "value")
    assert Envelopes([OTHER_KEY]).open("t", "c", 1, sealed) == "value"
    with pytest.raises(SealBroken):
        sealer.open("t", "c", 1, sealed)


def test_one_value_sealed_twice_gives_different_ciphertexts(sealer):
    assert sealer.seal("t", "c", 1, "value") != sealer.seal("t", "c", 1, "value")


def test_each_key_is_told_by_what_it_sealed_newest_first(sealer):
    both = Envelopes([OTHER_KEY, ENCRYPTION_KEY])
    assert both.sealed_by("t", "c", 1, sealer.seal("t", "c", 1, "value")) == 1
    assert both.sealed_by("t", "c", 1, both.seal("t", "c", 1, "value")) == 0


@pytest.mark.parametrize("sealed", [None, "", "gAAAA", SEALED])
def test_what_does_not_open_at_its_place_was_sealed_by_no_key(sealer, sealed):
    with pytest.raises(SealBroken):
        sealer.sealed_by("t", "c", 2, sealed)


def test_a_fingerprint_names_a_key_and_shows_nothing_of_it():
    mine, other = Envelopes([ENCRYPTION_KEY, OTHER_KEY]).fingerprints
    assert mine == hashlib.sha256(f"encryption-key {ENCRYPTION_KEY}".encode()).hexdigest()[:8]
    assert mine != other


def test_a_piece_opens_in_its_place_alone(monkeypatch):
    monkeypatch.setattr(PassphraseSeal, "MEMORY_KIB", 64)
    seal = PassphraseSeal.new("kettle")
    one, two = seal.seal(b"one", is_last=False), seal.seal(b"", is_last=True)
    opening = PassphraseSeal("kettle", seal.salt)
    assert [opening.open(one, is_last=False), opening.open(two, is_last=True)] == [b"one", b""]
    for passphrase, salt, piece, is_last in (
        ("kettlE", seal.salt, one, False),
        ("kettle", bytes(16), one, False),
        ("kettle", seal.salt, two, True),
        ("kettle", seal.salt, one, True),
        ("kettle", seal.salt, one[:-1], False),
        ("kettle", seal.salt, b"", False),
    ):
        with pytest.raises(SealBroken):
            PassphraseSeal(passphrase, salt).open(piece, is_last)
    with pytest.raises(SealBroken):
        PassphraseSeal("kettle", b"short")
