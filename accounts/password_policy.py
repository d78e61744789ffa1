"""What a new password has to be, where the server gets to see it; of a derived key it can't be told."""

from __future__ import annotations

from foundation.errors import BadRequest
from foundation.guesses import guesses_log10

MIN_CHARACTERS = 12
LEAST_GUESSES_LOG10 = 10.0  # "very unguessable" in zxcvbn's words: offline, against the hash of a derived key
MIN_NAME_CHARACTERS = 3  # a shorter name stands in too many good passwords
KINDS = {
    "an upper-case letter": str.isupper,
    "a lower-case letter": str.islower,
    "a digit": str.isdigit,
    "a character that is neither a letter nor a digit": lambda character: not character.isalnum(),
}


def check_new_password(password: str, email: str, field: str = "password") -> None:
    """Raises BadRequest with all that is missing, in one message under the field's name; never with the password."""
    wanted = [f"at least {MIN_CHARACTERS} characters"] if len(password) < MIN_CHARACTERS else []
    wanted += [kind for kind, is_one in KINDS.items() if not any(map(is_one, password))]
    faults = [f"must have {', '.join(wanted)}"] if wanted else []
    name = email.rpartition("@")[0].casefold()
    if len(name) >= MIN_NAME_CHARACTERS and name in password.casefold():
        faults.append("must not contain what stands before the @ of the e-mail address")
    if faults:
        raise BadRequest(f"{field} {', and '.join(faults)}")
    if guesses_log10(password, (email, name)) < LEAST_GUESSES_LOG10:
        raise BadRequest(
            f"{field} is among the first that attackers try: it is made of leaked passwords, words, dates or patterns; "
            "take several words that have nothing to do with each other"
        )
