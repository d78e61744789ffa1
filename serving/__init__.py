"""What stands between the server and Flask.

    door.py           takes model calls before Flask sees them: caller, limits, body, the answer's bytes
    request_body.py   a body, read piece by piece once there is room
    wrong_paths.py    what is said where there is nothing: the right base URL
    client_watch.py   whether a client is still there while it waits
    granian.py        granian's command line, with signals that arrive
    ending.py         whether this process has been told to end

The server -> door.py -> the proxy for model calls, Flask for everything else.
"""
