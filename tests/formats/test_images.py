"""Pictures: their events, their end, and whole answers as the stream that was asked for."""

import json

from formats.chat import Kind
from formats.event_stream import EventStream
from formats.registry import IMAGES
from upstream.refusal import Refusal

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.04}
COMPLETED = b'data: {"type":"image_generation.completed","created":1,"b64_json":"aGk=","usage":{"cost":0.04}}\n\n'


def events_of(body):
    return [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-2]]


def test_a_whole_answer_becomes_an_event_for_each_picture_with_the_bill_in_the_last():
    whole = {"created": 1, "data": [{"b64_json": "aGk="}, {"b64_json": "aG8="}], "usage": USAGE}
    stream = IMAGES.as_events(json.dumps(whole).encode())
    assert stream.endswith(b"data: [DONE]\n\n")
    kind = {"type": "image_generation.completed", "created": 1}
    assert events_of(stream) == [kind | {"b64_json": "aGk="}, kind | {"b64_json": "aG8=", "usage": USAGE}]


def test_what_is_no_picture_passes_in_one_event():
    assert IMAGES.as_events(b'{"data":[]}') == b'data: {"data":[]}\n\n'


def test_a_picture_is_content_and_its_completion_may_be_the_end():
    assert IMAGES.kind_of(COMPLETED) is Kind.CONTENT
    events = EventStream(IMAGES)
    assert events.feed(COMPLETED) == COMPLETED
    assert (events.finished, events.done, float(events.usage["cost"])) == (True, False, 0.04)
    events.feed(b"data: [DONE]\n\n")
    assert events.done


def test_a_long_picture_is_still_read():
    event = COMPLETED.replace(b"aGk=", b"A" * 3_000_000)
    events = EventStream(IMAGES)
    shown = b"".join(events.feed(event[at : at + 100_000]) for at in range(0, len(event), 100_000))
    assert (shown, events.finished, events.is_unread) == (event, True, False)
    assert events.usage


def test_an_error_in_a_stream_has_the_form_that_openrouter_documents():
    told = json.loads(IMAGES.refusal_event(Refusal(502, {"error": {"code": 502, "message": "no"}}), "m")[6:])
    assert told == {"type": "error", "error": {"code": "502", "message": "no"}}
