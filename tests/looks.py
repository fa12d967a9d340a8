"""Every page in every state worth looking at: who opens it, and how one gets there.

To add a page, add a line to ``LOOKS``. What it needs in the world is made in ``lay_out``, whose
names stand in braces in addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from browsing import ANSWERS, draft_evidence
from live import World
from stagerelease.access import service as access
from stagerelease.catalog import queries as catalog
from stagerelease.identity import entering, links, passwords, proving
from stagerelease.identity.tables import Passkey
from stagerelease.incidents import service as incidents
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries as papers
from stagerelease.releases import queries as releases


@dataclass(frozen=True)
class Look:
    """A page: its address, who opens it, what they fill in and which button they press."""

    path: str
    who: str | None = None
    press: str = ""
    fill: dict[str, str] = field(default_factory=dict)
    status: int = 200


ASK = "/models/{repo}/request"
REVIEW = "/staff/requests/{request}"
LOOKS = {
    "timeline": Look("/"),
    "timeline, filtered": Look("/?kind=release&model={repo}"),
    "timeline, nothing": Look("/?kind=withdrawal"),
    "models": Look("/models"),
    "model, open": Look("/models/{public}"),
    "model, gated": Look("/models/{repo}"),
    "model, held by me": Look("/models/{repo}", "researcher"),
    "model, asked for": Look("/models/{repo}", "outsider"),
    "model, on hold": Look("/models/{held}"),
    "log": Look("/log"),
    "log, searched": Look("/log?type=promotion.&about=nothing", "auditor"),
    "log, nothing": Look("/log?type=nothing"),
    "log entry": Look("/log/{entry}", "auditor"),
    "log entry, private": Look("/log/7"),
    "log entry, verified": Look("/log/5", "auditor", "Verify in this browser"),
    "playground": Look("/playground", "researcher"),
    "playground, written": Look(
        "/playground?model={repo}", "researcher", "Continue the text", {"prompt": "In a shocking"}
    ),
    "playground, nobody": Look("/playground"),
    "status": Look("/status"),
    "incident": Look("/incidents/{incident}"),
    "docs": Look("/docs"),
    "document": Look("/docs/staff"),
    "decision": Look("/docs/decisions/0003-ledger"),
    "api": Look("/docs/api"),
    "api, a subject": Look("/docs/api/access"),
    "problems": Look("/problems"),
    "a problem": Look("/problems/stale"),
    "parts": Look("/design"),
    "request form": Look(ASK),
    "request form, refused": Look(ASK, press="Send request", fill={"name": "Ada"}),
    "request form, saved": Look(ASK, press="Save draft", fill={"name": "Ada"}),
    "request form, waiting": Look(ASK, "outsider"),
    "request form, nothing to ask": Look("/models/{public}/request"),
    "request form, held by me": Look(ASK, "researcher"),
    "mail sent": Look(ASK + "/sent"),
    "confirm": Look("/access/confirm?t={confirm}"),
    "confirm, forged": Look("/access/confirm?t=x", status=422),
    "confirm, gone": Look("/access/confirm?t={gone}", status=422),
    "request status": Look("/requests/{request}", "outsider"),
    "sign in": Look("/sign-in"),
    "sign in, refused": Look("/sign-in", press="Mail me a link", fill={"address": "nobody"}),
    "sign in, sent": Look("/sign-in/sent"),
    "my access": Look("/me", "researcher"),
    "tokens": Look("/me/tokens", "researcher"),
    "tokens, made": Look("/me/tokens", "researcher", "Make token", {"name": "laptop"}),
    "tokens, refused": Look("/me/tokens", "researcher", "Make token"),
    "give up": Look("/me/grants/{grant}/give-up", "researcher"),
    "my evidence": Look("/me/evidence", "researcher"),
    "my evidence, refused": Look("/me/evidence", "researcher", "Save draft"),
    "my evidence, none": Look("/me/evidence", "outsider"),
    "my evidence, one": Look("/me/evidence/{evidence}", "researcher"),
    "security": Look("/me/security", "researcher"),
    "security, refused": Look("/me/security", "researcher", "Set password", {"new": "short"}),
    "passkey": Look("/me/security/passkey", "researcher"),
    "my data": Look("/me/data", "researcher"),
    "security, passkeys": Look("/me/security", "partner"),
    "step up, passkey": Look("/me/security/passkey", "partner", status=403),
    "step up, password": Look("/me/security/passkey", "auditor", status=403),
    "enrol": Look("/enrol?t={enrol}"),
    "my access, empty": Look("/me", "auditor"),
    "queue": Look("/staff/requests", "access_officer"),
    "queue, empty": Look("/staff/requests?show=decided", "access_officer"),
    "review": Look(REVIEW, "access_officer"),
    "review, refused": Look(REVIEW, "access_officer", "Reject request"),
    "review, read only": Look(REVIEW, "auditor"),
    "sign": Look("/agreements/{version}/sign", "partner"),
    "sign, refused": Look("/agreements/{version}/sign", "partner", "Sign agreement"),
    "decline": Look("/agreements/{version}/decline", "partner"),
    "signature": Look("/signatures/{signature}", "researcher"),
    "report": Look("/report"),
    "report, refused": Look("/report", press="Send report"),
    "reported": Look("/report", press="Send report", fill={"text": "I saw it on a forum."}),
    "follow": Look("/report/follow"),
    "follow, unknown": Look("/report/follow", press="Show", fill={"reference": "x"}),
    "no such page": Look("/nowhere", status=404),
}


def lay_out(world: World) -> dict[str, str]:
    """Make one of everything the pages show, and return what it is called."""
    repo, begin = world.repos["researcher"], world.box.works.begin
    answers = {k: True if v == "on" else v for k, v in ANSWERS.items()}
    with begin(world.actor("outsider")) as work:
        draft = access.save_draft(work, answers=answers, repo_id=repo)
        sent = access.submit_draft(work, draft.id).check().request
        assert sent is not None
    with begin(world.actor("access_officer")) as work:
        access.assign(work, sent.id)
        access.add_note(work, sent.id, text="Known group.")
        access.ask(work, sent.id, question="Who else can read the volume?")
    with begin() as work:
        mine = access.save_draft(work, answers=answers, repo_id=world.repos["partner"])
        assert access.submit_draft(work, mine.id, secret=mine.secret).confirming
        entering.ask_to_sign_in(work, "demo@example.org", network="ab" * 32)
    with begin(read_only=True) as work:
        facts = [j.payload.get("facts", {}) for j in work.session.query(Job).order_by(Job.id)]
        link = next(f["link"] for f in facts if f.get("link_path") == "/access/confirm")
        version = papers.find_in_force(work, "researcher-terms")
        signature = papers.list_signatures(work, person_id=world.actor("researcher").id)[0]
        grant = papers.list_grants(work, person_id=world.actor("researcher").id)[0]
    enrol = _keys(world)
    number = _incident(world)
    with begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    assert version is not None
    return {
        "incident": str(number),
        "entry": "73",
        "grant": grant.id,
        "evidence": draft_evidence(world),
        "enrol": links.sign_link(world.box.link_key, enrol),
        "request": sent.id,
        "version": version.id,
        "signature": signature.id,
        "confirm": links.sign_link(world.box.link_key, link),
        "gone": links.sign_link(world.box.link_key, "lnk_of_another_day"),
        "repo": repo,
        "public": world.repos["public"],
        "held": world.repos["partner"],
    }


def _keys(world: World) -> str:
    """Give the auditor a password and the partner two passkeys; print a link for the owner."""
    begin = world.box.works.begin
    with begin(world.actor("auditor")) as work:
        passwords.set_password(work, passwords.hash_new("four unrelated plain words"))
    with begin(OPERATOR) as work:
        for name, suspended in (("Work laptop", None), ("Old phone", work.now)):
            work.session.add(
                Passkey(
                    id=f"key_{name[:3].lower()}",
                    person_id=world.actor("partner").id,
                    credential_id=name.encode(),
                    public_key=b"of no use",
                    sign_count=7,
                    name=name,
                    transports=[],
                    synced=suspended is None,
                    created_at=work.now,
                    suspended_at=suspended,
                )
            )
        return proving.make_enrolment(work, world.actor("owner").name).link


def _incident(world: World) -> int:
    """Have a leak of the partner's model reported and confirmed, which lays a hold on it."""
    begin = world.box.works.begin
    with begin(quiet=True) as work:
        number = incidents.report(work, text="Your weights are on a torrent site.").incident_id
    with begin(world.actor("security")) as work:
        variant = catalog.load_variant(work, world.repos["partner"])
        track = releases.list_tracks(work, variant_id=variant.id)[0]
        incidents.triage(
            work,
            number,
            severity="high",
            blocking=True,
            actor_tier=2,
            title="Leaked",
            public_summary="Weights were found outside the release.",
            links=incidents.Links(tracks=[track.id]),
        )
        incidents.confirm(work, number, reason="Seen with our own eyes.")
    return number
