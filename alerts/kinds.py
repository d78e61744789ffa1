"""The table of what operators are told of: how each kind is asked, where it begins and ends, what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from alerts.facts import Fact, Facts

MINUTE = timedelta(minutes=1)
OTHERS = "others"
"""The subject of one alert in the place of many of its kind."""
OTHERS_SENTENCE = "It is so in {count} more places."


@dataclass(frozen=True)
class AlertKind:
    """One kind.

    It begins once a fact's value has been at `begins` or beyond for `lasting`, and is over once it has not been at
    `ends` or beyond for `quiet`: beyond is above, or below for what `falls`. Between the two nothing changes.
    """

    name: str
    title: str
    sentence: str
    advice: str
    ask: Callable[[Facts], Iterator[Fact]]
    begins: float
    ends: float
    falls: bool = False
    lasting: timedelta = timedelta()
    quiet: timedelta = 5 * MINUTE

    def is_reached(self, value: float) -> bool:
        """Whether something begins with this value."""
        return value < self.begins if self.falls else value >= self.begins

    def holds(self, value: float) -> bool:
        """Whether what has begun goes on."""
        return value < self.ends if self.falls else value >= self.ends

    def words(self, subject: str) -> str:
        """The sentence for a subject, whose parts are still to be filled in."""
        return OTHERS_SENTENCE if subject == OTHERS else self.sentence


KINDS = {
    kind.name: kind
    for kind in (
        AlertKind(
            "pool-resting",
            "No usable pool key",
            "No key of the pool can carry a call.",
            "Look at the page Pool: are the keys refused, spent or resting? Is the rotation running?",
            Facts.usable_keys,
            begins=1,
            ends=1,
            falls=True,
            lasting=MINUTE,
        ),
        AlertKind(
            "pool-low",
            "Few usable pool keys",
            "{usable} of {wanted} pool keys can carry calls.",
            "Look at the page Pool, and whether the rotation is running and may mint keys.",
            Facts.usable_share,
            begins=0.5,
            ends=0.75,
            falls=True,
            lasting=5 * MINUTE,
        ),
        AlertKind(
            "key-dead",
            "Pool key refused",
            "OpenRouter does not accept the pool key {key}.",
            "A minted key is replaced by the rotation. Replace one that you brought.",
            Facts.refused_keys,
            begins=1,
            ends=1,
            lasting=2 * MINUTE,
        ),
        AlertKind(
            "credit-low",
            "Little credit at OpenRouter",
            "{whose} has {left} left at OpenRouter.",
            "Add credit at https://openrouter.ai/settings/credits, or raise the key’s limit.",
            Facts.credit,
            begins=1,
            ends=1.2,
            falls=True,
        ),
        AlertKind(
            "quota-80",
            "Quota used to 80 %",
            "Account {account} has used {percent} % of its quota of {quota}.",
            "Nothing has to be done. Calls are refused once all of it is used.",
            Facts.quotas_used,
            begins=0.8,
            ends=0.75,
        ),
        AlertKind(
            "quota-100",
            "Quota used up",
            "Account {account} has used all of its quota of {quota}; its calls are refused.",
            "Raise the quota on the page Quotas, or wait until its period ends.",
            Facts.quotas_used,
            begins=1,
            ends=0.95,
        ),
        AlertKind(
            "drain-behind",
            "Calls not in the database",
            "What {host} served has not reached the database for {minutes} minutes.",
            "Nothing is lost: the journal keeps it. Look at the page System for what the database refuses.",
            Facts.drain_behind,
            begins=300,
            ends=30,
        ),
        AlertKind(
            "journal-unwritable",
            "Calls refused: nothing can be written down",
            "{host} refuses all calls, because DATA_DIR can’t be written: {reason}.",
            "Make room on the disk, or give the service the right to write there.",
            Facts.journal_faults,
            begins=1,
            ends=1,
        ),
        AlertKind(
            "disk-nearly-full",
            "Disk nearly full",
            "{host} has {free} left on the disk of DATA_DIR.",
            "Make room before calls are refused.",
            Facts.free_bytes,
            begins=1e9,
            ends=2e9,
            falls=True,
            lasting=MINUTE,
        ),
        AlertKind(
            "clock-wrong",
            "Clock wrong",
            "The clock of {host} is {seconds} seconds off the database’s.",
            "Let NTP set it (chrony, systemd-timesyncd). Calls go on, by the database’s clock.",
            Facts.clock_skew,
            begins=5,
            ends=2.5,
            lasting=MINUTE,
        ),
        AlertKind(
            "check-differs",
            "The daily check differs",
            "On {day} our sums and OpenRouter’s differ for {keys} keys.",
            "The page System shows by how much, key by key.",
            Facts.differences,
            begins=1,
            ends=1,
        ),
        AlertKind(
            "log-ins-refused",
            "Many refused log-ins",
            "{count} log-ins were refused within {minutes} minutes.",
            "Look at the page Audit for which accounts and addresses. Limits hold whoever guesses.",
            Facts.refused_log_ins,
            begins=300,
            ends=100,
            quiet=30 * MINUTE,
        ),
    )
}
