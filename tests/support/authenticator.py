"""A device with a passkey, in software: what it makes and signs, right or wrong in any way that a test wants."""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40

Json = dict[str, Any]


def text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def bytes_of(text: str) -> bytes:
    return urlsafe_b64decode(f"{text}===")


@dataclass
class Authenticator:
    """One key pair, good for one account. origin: of the page that asks; flags: what it says of its owner."""

    origin: str
    flags: int = PRESENT | VERIFIED
    count: int = 1
    handle: str = ""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def make(self, options: Json, **changed: Any) -> Json:
        """The JSON of a new credential. changed: of the client data."""
        self.handle = options["user"]["id"]
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + self._cose()
        data = self._data(options["rp"]["id"], self.flags | ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"], changed)
        return self._credential({"clientDataJSON": text_of(client), "attestationObject": text_of(attestation)})

    def sign(self, options: Json, rp_id: str = "", **changed: Any) -> Json:
        """The JSON of an answer to a challenge. changed: of the client data."""
        self.count += 1
        data = self._data(rp_id or options["rpId"], self.flags)
        client = self._client("webauthn.get", options["challenge"], changed)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {"clientDataJSON": text_of(client), "authenticatorData": text_of(data)}
        return self._credential(response | {"signature": text_of(signature), "userHandle": self.handle})

    def _credential(self, response: Json) -> Json:
        name = text_of(self.id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}

    def _client(self, kind: str, challenge: str, changed: Json) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(told | changed).encode()

    def _data(self, rp_id: str, flags: int) -> bytes:
        return hashlib.sha256(rp_id.encode()).digest() + struct.pack(">BI", flags, self.count)

    def _cose(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})
