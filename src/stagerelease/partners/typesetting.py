"""Data and a template in, one PDF/A file out: nothing fetched, the same input the same bytes.

The typesetter sees its own fonts only, so a page looks the same on every host. What those fonts
cannot show is written by its Unicode number instead of being left blank: a signer's name must be
on the page that says who signed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import typst

from stagerelease.kernel.errors import Unavailable

STANDARD: Literal["a-2a"] = "a-2a"
"""PDF/A-2, conformance level A: everything embedded, tagged for reading aloud."""

ATTEMPTS = 24
"""How many scripts that cannot be shown are found one by one; after that, all but ASCII goes."""

OWN_SCRIPTS = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW"})

BIDI = frozenset(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
"""Controls that turn the order of what stands around them; never obeyed, always spelled out."""

SPELLED = (
    "Characters that cannot be shown on this page are written by their Unicode number, such as "
    "[U+674E]. The document's other forms hold them as they were typed."
)
_UNSHOWN = re.compile(
    r'(?:the text|the codepoint) `"(?:\\u\{(?P<code>[0-9a-f]+)\}|(?P<shown>.))',
    re.DOTALL,
)


def typeset(template: bytes, data: Mapping[str, Any], at: datetime) -> bytes:
    """Return ``template`` filled with ``data`` as PDF/A, dated ``at``; the same again, every time.

    The template is given ``spelled``: a sentence where characters had to be spelled out, else "".

    Raises:
        Unavailable: the typesetter cannot run here.
    """
    unshown: set[str] = set()
    for _ in range(ATTEMPTS):
        try:
            return _compile(template, _spelled(data, unshown), at)
        except RuntimeError as error:
            found = _script(str(error))
            if found is None:
                raise _refusal() from error
            unshown |= {"any"} if found in unshown else {found}
        except OSError as error:
            raise _refusal() from error
    try:
        return _compile(template, _spelled(data, {"any"}), at)
    except (RuntimeError, OSError) as error:
        raise _refusal() from error


def _refusal() -> Unavailable:
    return Unavailable(
        "The document could not be typeset here; tell the operator. What it says can be fetched in "
        "its other forms: the text and the receipt, or the report as HTML.",
        reason="document.typeset",
    )


def _compile(template: bytes, data: Mapping[str, Any], at: datetime) -> bytes:
    made = typst.compile(
        template,
        format="pdf",
        sys_inputs={"data": json.dumps(data, ensure_ascii=False)},
        ignore_system_fonts=True,
        pdf_standards=STANDARD,
        timestamp=int(at.timestamp()),
    )
    if not isinstance(made, bytes):
        raise TypeError("the typesetter gave no single file")
    return made


def _script(refusal: str) -> str | None:
    """Return the script of the character that a refusal is about, or None when it is no such."""
    found = _UNSHOWN.search(refusal)
    if found is None:
        return None
    return _script_of(found["shown"] or chr(int(found["code"], 16)))


def _script_of(character: str) -> str:
    """Return what is spelled out together with this character: its whole script, or it alone.

    Of the scripts that the typeface has, one rare letter is spelled alone.
    """
    script = unicodedata.name(character, "").partition(" ")[0]
    if script in OWN_SCRIPTS:
        return character
    return script if character.isalpha() else f"row {ord(character) >> 8:x}"


def _spelled(data: Mapping[str, Any], unshown: set[str]) -> dict[str, Any]:
    spelled = False

    def spell(text: str) -> str:
        nonlocal spelled
        if text.isascii():
            return text
        told = "".join(
            f"[U+{ord(c):04X}]"
            if c in BIDI
            or (ord(c) > 126 and unshown and ("any" in unshown or _script_of(c) in unshown))
            else c
            for c in text
        )
        spelled = spelled or told != text
        return told

    filled = {key: _each_text(value, spell) for key, value in data.items()}
    filled["spelled"] = SPELLED if spelled else ""
    return filled


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with every text in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(each, change) for each in value]
    return value
