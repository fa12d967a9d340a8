"""Puts what callers say into a prompt of plain text, in a form that is written down. Pure.

Base models know no roles and no fields; they continue text. Both forms below are plain text whose
lines a caller's own words cannot add to: a field keeps to its line, whatever is in it. What a user
*says* in a conversation is text of the prompt, and a base model believes all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

FIELDS = ("domain", "date", "author", "title")
"""Fields of a metadata-conditioned prompt, in the order they are written (Zellers et al. 2019,
"Defending Against Neural Fake News", §3: domain, date, authors, headline, then the body)."""
LABELS = {"domain": "Domain", "date": "Date", "author": "Author", "title": "Title"}
MOST_FIELD = 300
"""Characters of one field."""
SPEAKERS = {"user": "User", "assistant": "Assistant"}
CHAT_STOP = "\nUser:"
"""Ends an answer in a conversation, beside what the caller asks for."""

_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """Return ``text`` on one line: every run of breaks, blanks and controls is one blank."""
    return _BREAKS.sub(" ", text).strip()


def metadata_prompt(fields: Mapping[str, str], article: str) -> str:
    """Return the prompt that a text with these fields begins like.

    ``Domain: …``, ``Date: …``, ``Author: …``, ``Title: …`` (those that are given), an empty line,
    and what of the article there is already.
    """
    lines = [f"{LABELS[name]}: {one_line(fields[name])}" for name in FIELDS if fields.get(name)]
    return "\n".join(lines) + "\n\n" + article


def chat_prompt(messages: Sequence[tuple[str, str]]) -> str:
    """Return a conversation as plain text that ends where the assistant is to speak.

    System words come first, as they are; then ``User: …`` and ``Assistant: …``, one per message.
    """
    system = "\n\n".join(text.strip() for role, text in messages if role == "system")
    turns = [f"{SPEAKERS[role]}: {text.strip()}" for role, text in messages if role in SPEAKERS]
    return "\n".join([*([system, ""] if system else []), *turns, "Assistant:"])
