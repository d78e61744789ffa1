"""The errors that clients see: one JSON shape, an integer code, a type out of OpenRouter's list, the right headers."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from openrouter import components

import web.api.table  # which brings every kind of error along
from accounts.invitations import InvitationRefused
from accounts.registration import InvitationNeeded, RegistrationClosed
from accounts.reset_links import ResetLinkRefused
from accounts.second_factors import SecondFactorNeeded, SecondFactorRequired
from accounts.sessions import TokenReused
from accounts.step_up import Act, Proof, SessionNotFresh
from foundation import errors
from foundation.errors import AppError
from tests.support.rows import each_row

# Section 5.1 of OpenRouter's contract: the words that `metadata.error_type` may be, with their statuses.
OPENROUTER_TYPES = {
    400: {
        *("context_length_exceeded", "max_tokens_exceeded", "token_limit_exceeded", "string_too_long"),
        *("invalid_request", "invalid_prompt", "invalid_image", "image_too_large", "image_too_small"),
        *("unsupported_image_format", "image_download_failed"),
    },
    401: {"authentication"},
    402: {"payment_required"},
    403: {"permission_denied", "content_policy_violation", "refusal"},
    404: {"not_found", "image_not_found"},
    412: {"precondition_failed"},
    413: {"payload_too_large"},
    422: {"unprocessable"},
    429: {"rate_limit_exceeded"},
    500: {"server", "unmapped"},
    502: {"provider_unavailable"},
    503: {"provider_overloaded"},
    504: {"timeout"},
}
ALL_TYPES = set().union(*OPENROUTER_TYPES.values())


assert web.api.table


WORDED = {InvitationRefused, InvitationNeeded, RegistrationClosed, ResetLinkRefused}  # they know what they say
WORDED |= {SecondFactorNeeded, SecondFactorRequired, errors.UsernameTaken, errors.ServiceFault, errors.ServerEnds}


def every_class(start: type[AppError] = AppError) -> list[type[AppError]]:
    return [start, *(found for child in start.__subclasses__() for found in every_class(child))]


def an_error(kind: type[AppError]) -> AppError:
    if kind in WORDED:
        return kind()
    if kind is errors.UpstreamRefused:
        return kind(418, "What was wrong")
    if kind is SessionNotFresh:
        return kind(Act.CHANGE_ROLE, Proof.KEY)
    if kind is TokenReused:
        return kind(7, "session")
    return kind("What was wrong", 7) if kind is errors.TooManyRequests else kind("What was wrong")


each_class = each_row("kind", every_class(), ids=lambda kind: kind.__name__)


def test_the_list_has_openrouters_27_words():
    assert len(ALL_TYPES) == 27


@each_class
def test_every_error_has_the_one_shape(kind):
    error = an_error(kind)
    body = json.loads(error.to_json())
    assert body == error.to_dict()
    assert body == {
        "error": {
            "code": error.status,
            "message": error.message,
            "type": error.type,
            "param": None,
            "metadata": {"error_type": error.error_type},
        },
        "message": error.message,
        "detail": error.message,
    }
    assert type(body["error"]["code"]) is int
    assert body["message"]


@each_class
def test_every_error_has_a_word_of_openrouters_list_that_fits_its_status(kind):
    error = an_error(kind)
    assert error.error_type in ALL_TYPES
    assert error.error_type in OPENROUTER_TYPES.get(error.status, ALL_TYPES)


@each_row("status", range(400, 600))
def test_any_status_has_a_word_of_openrouters_list(status):
    error = AppError("What was wrong")
    error.status = status
    assert error.error_type in ALL_TYPES


def test_types_are_snake_case_and_tell_the_statuses_apart():
    own = [kind for kind in every_class() if "type" in vars(kind) and kind is not errors.ServiceFault]
    types = {kind.type: kind.status for kind in own}
    assert len(types) == len(own)
    assert {(kind.type, kind.status) for kind in every_class()} == set(types.items())
    assert all(word.replace("_", "").islower() for word in types)


@each_row(
    ("error", "status", "headers"),
    [
        (errors.BadRequest("x"), 400, {}),
        (errors.UsernameTaken(), 400, {}),
        (errors.Unauthorized("x"), 401, {"WWW-Authenticate": 'Bearer realm="openrouter-proxy"'}),
        (errors.PaymentRequired("x"), 402, {"x-should-retry": "false"}),
        (errors.QuotaExceeded("x"), 402, {"x-should-retry": "false"}),
        (errors.Forbidden("x"), 403, {}),
        (errors.NotFound("x"), 404, {}),
        (errors.MethodNotAllowed("x", {"Allow": "POST"}), 405, {"Allow": "POST"}),
        (errors.RequestTimeout("x"), 408, {}),
        (errors.PayloadTooLarge("x"), 413, {}),
        (errors.UnsupportedMedia("x"), 415, {}),
        (errors.TooManyRequests("x", 7), 429, {"Retry-After": "7"}),
        (errors.TooManyRequests("x", 7, {"RateLimit": "y"}), 429, {"Retry-After": "7", "RateLimit": "y"}),
        (errors.ServiceFault(), 500, {}),
        (errors.UpstreamFailed("x"), 502, {}),
        (errors.Busy("x"), 503, {"Retry-After": "1"}),
        (errors.Busy("x", retry_after_seconds=5), 503, {"Retry-After": "5"}),
        (errors.UpstreamTimeout("x"), 504, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_status_and_headers(error, status, headers):
    assert (error.status, error.headers) == (status, headers)


def test_a_taken_name_is_told_in_the_words_of_the_interface():
    assert errors.UsernameTaken().to_dict()["message"] == "Username already exists"


def test_our_own_fault_tells_the_client_nothing_but_where_to_ask():
    assert "X-Request-Id" in errors.ServiceFault().message


def test_headers_of_one_error_are_not_those_of_the_next():
    errors.BadRequest("x").headers["X-One"] = "1"
    assert errors.BadRequest("x").headers == {}


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_message_survives_as_json(message):
    assert json.loads(AppError(message).to_json())["error"]["message"] == message


def test_openrouters_sdk_reads_our_errors():
    read = components.BadRequestResponseErrorData.model_validate(errors.BadRequest("What was wrong").to_dict()["error"])
    assert (read.code, read.message) == (400, "What was wrong")
