"""Takes the file of a form as it comes: nothing of it is put down anywhere on the way.

A framework's own forms are spooled into the temporary directory, which is memory where this runs
in a container, and only then handed over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import BytesIO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from stagerelease.kernel.errors import Invalid

Named = Callable[[str], Awaitable[None]]
"""Told the file's name before its first byte; raises when it is not wanted."""
Write = Callable[[bytes], Awaitable[None]]
PIECE = 1 << 20
FIELDS = 5


class _Passing(UploadFile):
    """The file of a form, passed on in pieces that are worth a trip to a thread."""

    def __init__(self, filename: str, named: Named, write: Write) -> None:
        super().__init__(BytesIO(), filename=filename)
        self._named, self._write = named, write
        self._begun = False
        self._held = bytearray()

    async def write(self, data: bytes) -> None:
        """Take what has come."""
        if not self._begun:
            self._begun = True
            await self._named(self.filename or "")
        self._held += data
        if len(self._held) >= PIECE:
            await self._pass_on()

    async def seek(self, offset: int) -> None:
        """Pass the rest on: a parser does this where the file ends, and only there."""
        del offset
        await self._pass_on()

    async def _pass_on(self) -> None:
        piece = bytes(self._held)
        self._held.clear()
        if piece:
            await self._write(piece)


class _Parser(MultiPartParser):
    def __init__(self, request: Request, named: Named, write: Write) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=FIELDS)
        self._named, self._write = named, write

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        spooled = self._current_part.file
        if spooled is not None:
            self._current_part.file = _Passing(spooled.filename or "", self._named, self._write)


async def pass_file_on(request: Request, named: Named, write: Write) -> str:
    """Hand the one file of a form on while it comes, and return its name; empty if none came.

    Raises:
        Invalid: it is no form with one file; and whatever ``named`` and ``write`` raise.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Invalid("This form holds no file.", reason="attachment.none", next_step="Choose one.")
    try:
        form = await _Parser(request, named, write).parse()
    except MultiPartException as error:
        raise Invalid("The form cannot be read.", reason="attachment.form") from error
    file = form.get("file")
    return file.filename or "" if isinstance(file, UploadFile) else ""
