"""Names that people give."""

from __future__ import annotations

from mainstay.core.errors import InvalidInput

NAME_LENGTH_MAX = 200


def checked_name(what: str, name: str) -> str:
    """The name without spaces around it. Raises InvalidInput for an empty, very long or unprintable one."""
    name = name.strip()
    if not name:
        raise InvalidInput(
            f"The name of a {what} cannot be empty." if what != "app" else "An app has a name."
        )
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidInput(f"This name has {len(name):,} characters.", fix=f"Use at most {NAME_LENGTH_MAX}.")
    if not name.isprintable():
        raise InvalidInput(f"The name {name!r} holds characters that cannot be shown.")
    return name
