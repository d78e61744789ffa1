"""Alerts: what operators are told of by itself, once when it begins and once when it is over.

    host.py      what each process reports of its host: disk, clock, journal
    facts.py     how things are, read from what the database and all processes' reports have already
    kinds.py     the table of kinds: how each is asked, where it begins and ends, what is said of it
    states.py    what rings and rang: one row each, changed by whoever is first of all processes
    messages.py  what goes out of it, to each channel: written with the change, tried until it arrives
    notice.py    one message as channels get it
    webhook.py   a channel: signed JSON to a URL
    mail.py      a channel: e-mail by SMTP
    rounds.py    a look at all facts, every few seconds, by one process of all
    bell.py      all of it as one object: the threads, the test, what pages show

facts.py -> kinds.py -> rounds.py -> states.py and messages.py, in one transaction -> bell.py -> webhook.py, mail.py
"""
