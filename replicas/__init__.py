"""What several processes of one deployment share through the database.

    revisions.py   which tables have changed: writers bump a number, every process watches it and reloads its copy
    processes.py   what each gateway process reports: that it lives, which pool keys it knows, which carry calls
    refusals.py    what the database refuses although it answers, in a word
    lease.py       which process rotates, for which deployment; remembers until when none may delete
    repeating.py   work done again and again in a thread of its own

A writer bumps -> revisions.py -> each process reloads -> processes.py says which revision it has seen.
"""
