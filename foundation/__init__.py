"""Ground for everything above: knows nothing of what the program is for.

    errors.py         the errors that this service answers with, as a tree, and their one JSON shape
    logs.py           one line an event, with secrets taken out
    clock.py          the time, which tests move
    deadline.py       one call's time: what is left, and when its driver looks after the client
    signals.py        what ends a program, from its first instruction on
    crypto.py         every cryptographic primitive: hashes, tokens, derived keys' Argon2id, encryption keys' envelopes
    guesses.py        how many guesses a password or a secret withstands
    counts.py         numbers that only grow, by labels, for statistics
    money.py          dollars as integer nano-dollars, and back
    column_types.py   times as aware UTC, on every database
    json_text.py      JSON as clients and OpenRouter really send it
    json_members.py   a JSON object's members, checked and not built: for texts that strangers may make large
    terminal.py       tables for people, JSON lines for programs

Nothing passes through: every room takes what it needs.
"""
