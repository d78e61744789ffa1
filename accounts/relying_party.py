"""What of WebAuthn has nothing to do with rows: the options that browsers get, and whether an answer is right.

Id and origin come from PUBLIC_URL alone, never from a request: what another site has had signed is of no use here.
"""

from __future__ import annotations

import ipaddress
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from foundation import json_text
from foundation.errors import BadRequest, Unauthorized

NAME = "OpenRouter Proxy"
TIMEOUT_MILLISECONDS = 120_000
DEFAULT_PORTS = {"http": 80, "https": 443}

Credential = Mapping[str, Any]  # a PublicKeyCredential as its `toJSON()` makes it
Verified = TypeVar("Verified")


@dataclass(frozen=True)
class NewCredential:
    """What a device has made; texts are base64url."""

    id: str
    public_key: str
    sign_count: int


@dataclass(frozen=True)
class RelyingParty:
    """This gateway, as devices know it. origin: of the pages on which they may be asked."""

    id: str
    origin: str

    def creation_options(self, challenge: str, handle: str, name: str, known: list[str]) -> dict[str, Any]:
        """What a browser makes a passkey from. handle, name: of the account; known: credentials that it has already."""
        import webauthn  # here, because it takes half a second and few processes ever ask
        from webauthn.helpers import options_to_json_dict
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            PublicKeyCredentialDescriptor,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        options = webauthn.generate_registration_options(
            rp_id=self.id,
            rp_name=NAME,
            user_id=_bytes(handle),
            user_name=name,
            challenge=_bytes(challenge),
            timeout=TIMEOUT_MILLISECONDS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=_bytes(one)) for one in known],
        )
        return options_to_json_dict(options)

    def request_options(self, challenge: str) -> dict[str, Any]:
        """What a browser has signed. The same for everybody: the device knows which passkeys it has for this id."""
        return {
            "challenge": challenge,
            "rpId": self.id,
            "timeout": TIMEOUT_MILLISECONDS,
            "allowCredentials": [],
            "userVerification": "required",
        }

    def verify_new(self, challenge: str, credential: Credential) -> NewCredential:
        """What was made for this challenge. Raises BadRequest."""
        import webauthn
        from webauthn.helpers import bytes_to_base64url, decode_credential_public_key
        from webauthn.helpers.decoded_public_key_to_cryptography import decoded_public_key_to_cryptography

        def verify() -> NewCredential:
            made = webauthn.verify_registration_response(
                credential=dict(credential),
                expected_challenge=_bytes(challenge),
                expected_rp_id=self.id,
                expected_origin=self.origin,
                require_user_verification=True,
            )
            # A key that can't be read would be noticed only at the log-in.
            decoded_public_key_to_cryptography(decode_credential_public_key(made.credential_public_key))
            made_key = bytes_to_base64url(made.credential_public_key)
            return NewCredential(bytes_to_base64url(made.credential_id), made_key, made.sign_count)

        made = _guarded(verify)
        if made is None:
            raise BadRequest("This is no passkey that was made here just now, with its owner verified; begin again")
        return made

    def verify(self, challenge: str, credential: Credential, public_key: str, sign_count: int) -> int:
        """The new sign count of a passkey that has signed this challenge. Raises Unauthorized.

        A count that does not rise is refused: there are two of this device.
        """
        import webauthn

        signed = _guarded(
            lambda: webauthn.verify_authentication_response(
                credential=dict(credential),
                expected_challenge=_bytes(challenge),
                expected_rp_id=self.id,
                expected_origin=self.origin,
                credential_public_key=_bytes(public_key),
                credential_current_sign_count=sign_count,
                require_user_verification=True,
            )
        )
        if signed is None:
            raise Unauthorized("Invalid credentials")
        return signed.new_sign_count


def find_relying_party(public_url: str) -> RelyingParty | None:
    """This gateway at its public address; None where browsers have no passkeys: an IP address, and http elsewhere than
    on one's own machine."""
    parts = urlsplit(public_url)
    name = parts.hostname or ""
    try:
        ipaddress.ip_address(name)
        return None
    except ValueError:
        pass
    if not name or (parts.scheme != "https" and name != "localhost" and not name.endswith(".localhost")):
        return None
    port = "" if parts.port in {None, DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    return RelyingParty(name, f"{parts.scheme}://{name}{port}")


def challenge_of(credential: Credential) -> str:
    """The challenge that an answer says it is for. Raises BadRequest."""
    try:
        told = json_text.parse(_bytes(credential["response"]["clientDataJSON"]))
    except ValueError:
        told = None
    challenge = told.get("challenge") if isinstance(told, dict) else None
    if not isinstance(challenge, str) or not challenge.isascii():
        raise BadRequest("response.clientDataJSON must be what the browser made of a challenge of this gateway")
    return challenge


def _guarded(verify: Callable[[], Verified]) -> Verified | None:
    """What verify returns; None if it raises. Of what strangers send, the library raises more than it documents."""
    try:
        return verify()
    except Exception:  # noqa: BLE001
        return None


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(f"{text}===")
