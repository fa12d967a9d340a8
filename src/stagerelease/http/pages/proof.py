"""The page that asks somebody to show again that it is them, and keeps what they were doing.

It carries the form that was refused, field for field. Once the proof is there the same form is
sent on, by the script of the page or by its button, to where it was going.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request, Response

from stagerelease.http.pages.forms import Typed
from stagerelease.http.pages.frame import page, safe_next
from stagerelease.http.wire import origin_of
from stagerelease.identity.passkeys import Site
from stagerelease.kernel.errors import DomainError, Invalid, ProofNeeded


@dataclass(frozen=True, slots=True)
class Kept:
    """What was refused: where it goes, how, and every field of it."""

    target: str
    method: str
    fields: Sequence[tuple[str, str]]


def site_of(request: Request) -> Site:
    """Return the place that passkeys used over this request belong to."""
    origin = origin_of(request)
    return Site(host=urlsplit(origin).hostname or "", origin=origin)


def named_address(request: Request) -> str:
    """Return what to open instead where the address is of numbers; nothing where it is a name.

    A passkey belongs to a name (WebAuthn, section 5.1.3).
    """
    origin = urlsplit(origin_of(request))
    try:
        ip_address(origin.hostname or "")
    except ValueError:
        return ""
    port = f":{origin.port}" if origin.port else ""
    return f"{origin.scheme}://localhost{port}"


def kept_of(sent: Typed) -> Kept:
    """Return what the page of this module has sent back of what it keeps.

    Raises:
        Invalid: it leads to somewhere that is not ours.
    """
    target, method = safe_next(sent.raw("target")), sent.raw("method")
    if not target or method not in ("get", "post"):
        raise Invalid("This does not lead to a page of this service.", reason="proof.target")
    names, values = sent.all("kept_name"), sent.all("kept_value")
    return Kept(target, method, list(zip(names, values, strict=False)))


def ask_for_proof(request: Request, error: ProofNeeded) -> Response:
    """Return the page for a request that was refused for want of a proof."""
    whole = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    post = request.method not in ("GET", "HEAD")
    fields = getattr(request.state, "sent", ()) if post else ()
    kept = Kept(safe_next(whole) or "/", "post" if post else "get", fields)
    return show_proof_page(request, kept, way=error.way, status=403)


def show_proof_page(
    request: Request,
    kept: Kept,
    *,
    way: str,
    status: int = 200,
    proved: bool = False,
    mailed_to: str = "",
    refusal: DomainError | None = None,
) -> Response:
    """Return the page that takes a proof by ``way``, or goes on once it is there."""
    return page(
        request,
        "step_up.html",
        status=status,
        kept=kept,
        way=way,
        proved=proved,
        mailed_to=mailed_to,
        named=named_address(request),
        refusal=refusal,
        errors={"password": refusal.sentence} if refusal and way == "password" else {},
    )
