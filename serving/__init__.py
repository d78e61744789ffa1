"""What stands between the server and Flask.

    door.py           takes model calls before Flask sees them: caller, limits, body, the answer's bytes
    framing.py        what a request's head must be like, so that all read the same from it
    cross_origin.py   which pages of other origins may call and read: CORS
    lanes.py          who may hold a thread: model calls, log-ins, everything else
    slow_bodies.py    bodies on their way in, and how their senders are let go
    listeners.py      how long an answer may be left unread; how many files may be open
    request_body.py   a body, read piece by piece once there is room
    dialects.py       whose client has sent a request: in which form it reads errors
    wrong_paths.py    what is said where there is nothing: the right base URL
    client_watch.py   whether a client is still there while it waits
    granian.py        granian's command line, with signals that arrive
    gunicorn.py       gunicorn's worker, which waits for heads without threads
    ending.py         whether this process has been told to end

The server -> door.py -> the proxy for model calls, Flask for everything else.
"""
