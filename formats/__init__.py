"""The formats in which models are called; everything that differs between them stands here.

    registry.py       all of them, by the names of scopes; those that differ little from chat
    body.py           what the gateway reads of a call's body
    form_data.py      the fields of a multipart form
    named_models.py   models that a body calls by plugins, tools and presets
    server_tools.py   whether something else than a model has a part in an answer
    chat.py           the base of all formats: kinds of events, ends, usage, and how a stream's error event is made
    messages.py       Anthropic's, where it differs from chat.py
    responses.py      OpenAI's Responses, likewise
    images.py         pictures, likewise
    videos.py         films, likewise: a call starts a job
    event_stream.py   events as they pass: usage, errors, end
    token_counts.py   how many tokens a prompt has, where Anthropic's clients ask
    usage_block.py    what an answer cost, digit by digit

Up: body.py. Down: event_stream.py asks chat.py, or its sibling, about each event, and notes its usage_block.
"""
