"""WebAuthn's JSON (Level 3): what browsers make of a credential, and read as options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from accounts.passkeys import PasskeyProof
from web.cookies import Cookie
from web.operation import Body, Shown

BROWSER = Cookie("passkey")

Base64Url = Annotated[
    str, Field(min_length=1, max_length=8192, pattern="^[A-Za-z0-9_-]+$", examples=["p1kXzJq3mQ4yQ0o3c4m5vw"])
]


class _Made(Body):
    """What browsers make; they add more as the standard grows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class AttestationResponse(_Made):
    """What a device says of a passkey that it has made."""

    clientDataJSON: Base64Url
    attestationObject: Base64Url


class AssertionResponse(_Made):
    """What a device has signed."""

    clientDataJSON: Base64Url
    authenticatorData: Base64Url
    signature: Base64Url
    userHandle: Base64Url


class _Credential(_Made):
    id: Base64Url
    rawId: Base64Url
    type: Literal["public-key"]


class PasskeyMade(_Credential):
    """A new passkey: the `toJSON()` of what `navigator.credentials.create()` has made."""

    response: AttestationResponse


class PasskeyAnswer(_Credential):
    """An answer of a passkey: the `toJSON()` of what `navigator.credentials.get()` has made."""

    response: AssertionResponse


def proof_of(answer: PasskeyAnswer) -> PasskeyProof:
    """An answer, with the browser that sends it."""
    return PasskeyProof(BROWSER.read(), answer.model_dump())


class CredentialKind(Shown):
    """A kind of keys. alg: its number at IANA (COSE)."""

    type: Literal["public-key"]
    alg: int = Field(examples=[-7])


class KnownCredential(Shown):
    """A passkey that there is."""

    type: Literal["public-key"]
    id: Base64Url


class RelyingPartyShown(Shown):
    """Whose passkeys they are."""

    id: str = Field(examples=["gateway.example.com"])
    name: str = Field(examples=["OpenRouter Proxy"])


class PasskeyOwner(Shown):
    """What a device calls the account."""

    id: Base64Url
    name: str = Field(examples=["account-7"])
    displayName: str = Field(examples=["account-7"])


class WantedDevice(Shown):
    """What a device has to do."""

    residentKey: Literal["required"]
    requireResidentKey: Literal[True]
    userVerification: Literal["required"]


class CreationOptions(Shown):
    """For `PublicKeyCredential.parseCreationOptionsFromJSON`."""

    rp: RelyingPartyShown
    user: PasskeyOwner
    challenge: Base64Url
    pubKeyCredParams: list[CredentialKind]
    timeout: int = Field(description="Milliseconds", examples=[120_000])
    excludeCredentials: list[KnownCredential]
    authenticatorSelection: WantedDevice
    attestation: Literal["none"]


class RequestOptions(Shown):
    """For `PublicKeyCredential.parseRequestOptionsFromJSON`."""

    challenge: Base64Url
    rpId: str = Field(examples=["gateway.example.com"])
    timeout: int = Field(description="Milliseconds", examples=[120_000])
    allowCredentials: list[KnownCredential] = Field(description="Empty: the device knows which it has")
    userVerification: Literal["required"]
