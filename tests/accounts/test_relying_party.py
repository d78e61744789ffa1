"""What this gateway is to devices: by PUBLIC_URL alone; and what is no answer to a challenge, however it is malformed."""

from __future__ import annotations

import cbor2
import pytest

from accounts.relying_party import RelyingParty, challenge_of, find_relying_party
from foundation.crypto import new_token
from foundation.errors import BadRequest, Unauthorized
from tests.support.authenticator import PRESENT, Authenticator, bytes_of, text_of

PARTY = RelyingParty("gateway.test", "https://gateway.test")
HANDLE = new_token()


def made_by(device: Authenticator, challenge: str):
    credential = device.make(PARTY.creation_options(challenge, HANDLE, "account-1", []))
    return PARTY.verify_new(challenge, credential)


def test_it_is_known_by_its_public_address_where_browsers_have_passkeys():
    rows = {
        "https://gateway.test": ("gateway.test", "https://gateway.test"),
        "https://Gateway.Test": ("gateway.test", "https://gateway.test"),
        "https://gateway.test:443": ("gateway.test", "https://gateway.test"),
        "https://gateway.test:8443": ("gateway.test", "https://gateway.test:8443"),
        "http://localhost:5000": ("localhost", "http://localhost:5000"),
        "http://gateway.test": None,
        "http://localhost.evil.test": None,
        "https://192.0.2.1": None,
        "https://[2001:db8::1]": None,
        "": None,
    }
    found = {url: (party.id, party.origin) if (party := find_relying_party(url)) else None for url in rows}
    assert found == rows


def test_every_device_must_verify_its_owner_and_keep_the_passkey():
    options = PARTY.creation_options(new_token(), HANDLE, "account-1", [text_of(b"known")])
    wanted = options["authenticatorSelection"]
    assert (wanted["residentKey"], wanted["userVerification"]) == ("required", "required")
    assert [one["id"] for one in options["excludeCredentials"]] == [text_of(b"known")]
    assert options["user"]["id"] == HANDLE
    assert PARTY.request_options("x")["userVerification"] == "required"


def test_a_passkey_is_made_and_signs():
    device, first, second = Authenticator(PARTY.origin), new_token(), new_token()
    made = made_by(device, first)
    answer = device.sign(PARTY.request_options(second))
    assert challenge_of(answer) == second
    assert PARTY.verify(second, answer, made.public_key, made.sign_count) == 2


@pytest.mark.parametrize(
    ("wrong", "device"),
    [
        ("another origin", Authenticator("https://evil.test")),
        ("another port", Authenticator("https://gateway.test:8443")),
        ("no verification", Authenticator(PARTY.origin, flags=PRESENT)),
        ("nobody there", Authenticator(PARTY.origin, flags=4)),
    ],
)
def test_what_is_wrong_with_a_device_is_refused_when_it_makes_and_when_it_signs(wrong, device):
    challenge = new_token()
    with pytest.raises(BadRequest):
        made_by(device, challenge)
    good = Authenticator(PARTY.origin, key=device.key, id=device.id)
    made = made_by(good, challenge)
    with pytest.raises(Unauthorized):
        PARTY.verify(challenge, device.sign(PARTY.request_options(challenge)), made.public_key, 0)


def test_an_answer_is_for_one_challenge_one_key_one_kind_and_one_gateway():
    device, challenge = Authenticator(PARTY.origin), new_token()
    made, other = made_by(device, challenge), made_by(Authenticator(PARTY.origin), new_token())
    options = PARTY.request_options(challenge)
    spoiled = device.sign(options)
    spoiled["response"]["signature"] = text_of(bytes(70))
    answers = [
        (device.sign(options), new_token(), made.public_key),
        (device.sign(options), challenge, other.public_key),
        (device.sign(options, type="webauthn.create"), challenge, made.public_key),
        (device.sign(options, "evil.test"), challenge, made.public_key),
        (device.sign(options, origin=f"{PARTY.origin}.evil.test"), challenge, made.public_key),
        (spoiled, challenge, made.public_key),
    ]
    for answer, wanted, key in answers:
        with pytest.raises(Unauthorized):
            PARTY.verify(wanted, answer, key, 0)


@pytest.mark.parametrize("count", [5, 6])
def test_a_count_that_does_not_rise_is_refused_and_no_count_at_all_is_none(count):
    device, challenge = Authenticator(PARTY.origin), new_token()
    made = made_by(device, challenge)
    device.count = 4  # and five when it signs
    with pytest.raises(Unauthorized):
        PARTY.verify(challenge, device.sign(PARTY.request_options(challenge)), made.public_key, count)
    device.count = -1
    assert PARTY.verify(challenge, device.sign(PARTY.request_options(challenge)), made.public_key, 0) == 0


def test_what_is_malformed_is_refused_and_nothing_else_happens():
    device, challenge = Authenticator(PARTY.origin), new_token()
    options = PARTY.creation_options(challenge, HANDLE, "account-1", [])
    good = device.make(options)
    data = cbor2.loads(bytes_of(good["response"]["attestationObject"]))["authData"]
    objects = [
        b"",
        b"\xff",
        b"\x9f" * 2000,
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        cbor2.dumps([]),
        cbor2.dumps({"fmt": "none"}),
        cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data[:40]}),
        cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data + b"x"}),
        cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data[:71] + cbor2.dumps({1: 2, 3: -7})}),
        cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data[:71] + cbor2.dumps([1, 2])}),
        cbor2.dumps({"fmt": "made up", "attStmt": {}, "authData": data}),
        cbor2.dumps({"fmt": ["none"], "attStmt": 7, "authData": 7}),
    ]
    point_elsewhere = {1: 2, 3: -7, -1: 1, -2: bytes(32), -3: b"\1" * 32}
    objects.append(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data[:71] + cbor2.dumps(point_elsewhere)}))
    for spoiled in objects:
        response = good["response"] | {"attestationObject": text_of(spoiled)}
        with pytest.raises(BadRequest):
            PARTY.verify_new(challenge, good | {"response": response})
    assert PARTY.verify_new(challenge, good).id == text_of(device.id)
    for text in ("", "x", "!", text_of(b"{}"), text_of(b"[]"), text_of(b'{"challenge": 7}'), text_of(b"\xff")):
        with pytest.raises(BadRequest):
            challenge_of({"response": {"clientDataJSON": text}})
