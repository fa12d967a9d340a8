"""A checkpoint's tokenizer: text to ids, and each id to the bytes it stands for.

Only byte-level tokenizers are taken (GPT-2's kind): there every id has bytes of its own, so that an
answer can be sent as it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tokenizers import Tokenizer

from stagerelease.engine.ports import Prompt
from stagerelease.kernel.errors import FieldError, Invalid


@cache
def byte_of_character() -> dict[str, int]:
    """Return which byte each character of a byte-level vocabulary stands for.

    The 188 printable bytes of Latin-1 stand for themselves; the others, in order, are shifted to
    U+0100 and up (Radford et al. 2019, byte-level BPE).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


class Vocabulary:
    """The tokens of one checkpoint. ``size`` counts the model's ids, named or not."""

    def __init__(self, source: bytes, *, size: int) -> None:
        """Read a ``tokenizer.json``.

        Raises:
            Invalid: it is not one, or not byte-level (``engine.model``).
        """
        try:
            self._tokenizer = Tokenizer.from_buffer(source)
        except Exception as error:  # the library raises bare Exception
            raise Invalid("tokenizer.json cannot be read.", reason="engine.model") from error
        if "ByteLevel" not in str(self._tokenizer.decoder):
            raise Invalid(
                "Its tokenizer is not byte-level, so its text cannot be sent as it comes.",
                reason="engine.model",
            )
        # A file may ask for prompts to be cut or filled up; here they are taken as they are.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.size = size
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {token for token, told in added.items() if told.special}
        self._added = {token: told.content.encode() for token, told in added.items()}
        self._bytes: dict[int, bytes] = {}
        # A vocabulary's name has a character for each byte, a control token's up to four bytes.
        self._longest = max((len(name.encode()) for name in self._tokenizer.get_vocab()), default=1)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, checked.

        Raises:
            Invalid: an id that the model does not have or text that is none (``engine.token``), or
                a prompt of no tokens (``engine.empty``).
        """
        ids = self._read_text(prompt) if isinstance(prompt, str) else list(prompt)
        self.check(ids)
        if not ids:
            raise Invalid(
                "The prompt holds no tokens, and there is nothing to continue.",
                reason="engine.empty",
                next_step="Give at least one word.",
            )
        return ids

    def check(self, ids: Iterable[int], *, param: str | None = None) -> None:
        """Let ids pass that the model has; ``param`` is what named them, if it is no prompt.

        Raises:
            Invalid: one that it does not have (``engine.token``).
        """
        wrong = next((i for i in ids if not 0 <= i < self.size), None)
        if wrong is not None:
            sentence = f"{wrong} is no token of this model: ids go from 0 to {self.size - 1}."
            fields = [FieldError(param, sentence)] if param is not None else []
            raise Invalid(sentence, reason="engine.token", fields=fields)

    def most_bytes(self, tokens: int) -> int | None:
        """Return how many bytes of text so many tokens can hold at most, if that is known."""
        if self._tokenizer.normalizer is not None:  # it may shorten the text to anything
            return None
        return tokens * self._longest

    def _read_text(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Invalid(
                f"The prompt holds half of a character (U+{ord(text[error.start]):04X}).",
                reason="engine.token",
                next_step="Send text that is valid Unicode.",
            ) from error
        # Of its ways this one is the fastest, and lets other threads go on meanwhile.
        found = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = found[0].ids
        return ids

    def bytes_of(self, token: int) -> bytes:
        """Return what a token adds to the text; nothing for a special token."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._read(token)
        return known

    def spell(self, token: int) -> str:
        """Return a token as it is shown by itself; bytes that are no text as ``bytes:\\xNN``."""
        raw = self.bytes_of(token)
        if not raw:
            return self._tokenizer.id_to_token(token) or ""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _read(self, token: int) -> bytes:
        name = self._tokenizer.id_to_token(token)
        if name is None or token in self._special:
            return b""
        if token in self._added:  # text as it stands, and no name in byte-level characters
            return self._added[token]
        table = byte_of_character()
        if all(character in table for character in name):
            return bytes(table[character] for character in name)
        return name.encode()
