"""Every page in every state worth looking at: who opens it, and how one gets there.

To add a page, add a line to ``LOOKS``. What it needs in the world is made in ``lay_out``, whose
names stand in braces in addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from browsing import ANSWERS, cookie_for, draft_evidence
from live import World
from stagerelease.access import service as access
from stagerelease.catalog import queries as catalog
from stagerelease.catalog import service as catalog_service
from stagerelease.catalog.rules import NewFile
from stagerelease.evidence import service as evidence
from stagerelease.identity import entering, links, passwords, proving
from stagerelease.identity.tables import Passkey, Person
from stagerelease.incidents import service as incidents
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.ledger import service as ledger
from stagerelease.notices import service as notices
from stagerelease.partners import queries as papers
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.releases.planning import record_version


@dataclass(frozen=True)
class Look:
    """A page: its address, who opens it, what they unfold, fill in, and which button they press.

    ``stays``: a script answers the button, on the page itself.
    """

    path: str
    who: str | None = None
    press: str = ""
    fill: dict[str, str] = field(default_factory=dict)
    status: int = 200
    unfold: str = ""
    stays: bool = False


ASK = "/models/{repo}/request"
REVIEW = "/staff/requests/{request}"
PROMOTION = "/staff/promotions/{promotion}"
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
    "log entry, verified": Look("/log/5", "auditor", "Verify in this browser", stays=True),
    "playground": Look("/playground", "researcher"),
    "playground, written": Look(
        "/playground?model={repo}",
        "researcher",
        "Continue the text",
        {"prompt": "In a shocking"},
        stays=True,
    ),
    "playground, nobody": Look("/playground"),
    "status": Look("/status"),
    "incident": Look("/incidents/{incident}"),
    "docs": Look("/docs"),
    "document": Look("/docs/staff"),
    "decision": Look("/docs/decisions/0003-ledger"),
    "api": Look("/docs/api"),
    "api, a subject": Look("/docs/api/access"),
    "api, nested": Look("/docs/api/evidence"),
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
    "sign in, by link": Look("/sign-in/confirm?t={sign_in}"),
    "sign in, forged": Look("/sign-in/confirm?t=x", status=422),
    "my access": Look("/me", "researcher"),
    "tokens": Look("/me/tokens", "researcher"),
    "tokens, made": Look("/me/tokens", "researcher", "Make token", {"name": "laptop"}),
    "tokens, refused": Look("/me/tokens", "researcher", "Make token"),
    "give up": Look("/me/grants/{grant}/give-up", "researcher"),
    "my evidence": Look("/me/evidence", "researcher"),
    "my evidence, nothing chosen": Look("/me/evidence", "researcher", "Go on"),
    "my evidence, new": Look("/me/evidence/new?what=detectability.accuracy", "researcher"),
    "my evidence, refused": Look(
        "/me/evidence/new?what=zero_shot_eval.f1", "researcher", "Save draft", {"value": "91,2"}
    ),
    "my evidence, staff": Look("/me/evidence/new?what=credibility.finding", "reviewer_a"),
    "my evidence, draft": Look("/me/evidence/{draft}/edit", "researcher"),
    "my evidence, none": Look("/me/evidence", "outsider"),
    "my evidence, one": Look("/me/evidence/{draft}", "researcher"),
    "security": Look("/me/security", "researcher"),
    "security, refused": Look("/me/security", "researcher", "Set password", {"new": "short"}),
    "passkey": Look("/me/security/passkey", "researcher"),
    "my data": Look("/me/data", "researcher"),
    "security, passkeys": Look("/me/security", "partner"),
    "step up, passkey": Look("/me/security/passkey", "partner", status=403),
    "step up, password": Look("/me/security/passkey", "auditor", status=403),
    "step up, by link": Look("/step-up/confirm?t={prove}", "access_officer"),
    "step up, elsewhere": Look("/step-up/confirm?t={prove}", "access_officer", "Yes, it is me"),
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
    "board": Look("/staff", "reviewer_b"),
    "board, waiting": Look("/staff?show=waiting", "release_manager"),
    "board, nothing": Look("/staff?q=nothing-of-that-name", "auditor"),
    "promotions": Look("/staff/promotions", "auditor"),
    "promotion": Look(PROMOTION, "reviewer_b"),
    "promotion, refused": Look(PROMOTION, "reviewer_b", "Reject"),
    "promotion, own": Look(PROMOTION, "release_manager"),
    "promotion, read only": Look(PROMOTION, "auditor"),
    "promotion, to answer": Look("/staff/promotions/{asking}", "reviewer_b"),
    "promotion, to waive": Look("/staff/promotions/{asking}", "security"),
    "promotion, to promote": Look("/staff/promotions/{approved}", "release_manager"),
    "promotion, not typed": Look(
        "/staff/promotions/{approved}", "release_manager", "Promote to public"
    ),
    "promotion, applied": Look("/staff/promotions/1", "owner"),
    "promotion, edit": Look(PROMOTION + "/edit", "release_manager"),
    "promote": Look("/staff/tracks/{track}/promote", "release_manager"),
    "promote, refused": Look(
        "/staff/tracks/{track}/promote", "release_manager", "Submit promotion"
    ),
    "track": Look("/staff/tracks/{track}", "owner"),
    "track, on hold": Look("/staff/tracks/{held_track}", "security"),
    "holds": Look("/staff/holds", "security"),
    "holds, refused": Look("/staff/holds", "security", "Lay hold"),
    "hold": Look("/staff/holds/1", "security"),
    "plans": Look("/staff/plans", "release_manager"),
    "plan": Look("/staff/plans/demo", "release_manager"),
    "plan editor": Look("/staff/plan-editor?base=demo", "release_manager"),
    "plan editor, wrong": Look(
        "/staff/plan-editor", "release_manager", "Check", {"source": "plan: [\n"}
    ),
    "plan proposal": Look("/staff/plan-proposals/{proposal}", "reviewer_a"),
    "queue, beside": Look("/staff/requests?beside={request}", "access_officer"),
    "review, begun": Look(REVIEW + "?ready=storage", "access_officer"),
    "incidents": Look("/staff/incidents", "security"),
    "incident, handled": Look("/staff/incidents/{incident}", "security"),
    "incident, to assess": Look("/staff/incidents/{reported}", "security"),
    "incident, refused": Look("/staff/incidents/{incident}", "security", "Its harm is contained"),
    "freeze": Look("/staff/incidents/{triaged}/freeze", "security"),
    "advisory": Look("/staff/incidents/{incident}/advisories/{advisory}", "security"),
    "evidence": Look("/staff/evidence", "reviewer_a"),
    "evidence, one": Look("/staff/evidence/{evidence}", "reviewer_a"),
    "evidence, read only": Look("/staff/evidence/{evidence}", "auditor"),
    "agreements": Look("/staff/agreements", "access_officer"),
    "agreement": Look("/staff/agreements/researcher-terms/versions/2", "access_officer"),
    "agreement, draft": Look("/staff/agreements/researcher-terms/draft", "access_officer"),
    "signature, staff": Look("/staff/signatures/{signature}", "access_officer"),
    "people": Look("/staff/people", "owner"),
    "person": Look("/staff/people/demo-manager", "owner"),
    "person, not erased": Look(
        "/staff/people/demo-manager",
        "owner",
        "Erase person",
        {"reason": "Asked by letter."},
        unfold="Erase this person",
    ),
    "organisation": Look("/staff/organisations/partner-a", "owner"),
    "holders": Look("/staff/holders", "auditor"),
    "holders, future": Look("/staff/holders?at=2999-01-01T00:00", "auditor", status=422),
    "usage": Look("/staff/usage", "auditor"),
    "webhooks": Look("/staff/webhooks", "owner"),
    "webhook": Look("/staff/webhooks/{webhook}", "owner"),
    "webhook, stopped": Look(
        "/staff/webhooks/{webhook}", "owner", "Stop posting", {"reason": "It moves."}
    ),
    "no such page": Look("/nowhere", status=404),
}


def lay_out(world: World, *, keys: bool = True) -> dict[str, str]:
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
    with begin(read_only=True) as work:
        facts = [j.payload.get("facts", {}) for j in work.session.query(Job).order_by(Job.id)]
        link = next(f["link"] for f in facts if f.get("link_path") == "/access/confirm")
        version = papers.find_in_force(work, "researcher-terms")
        signature = papers.list_signatures(work, person_id=world.actor("researcher").id)[0]
        grant = papers.list_grants(work, person_id=world.actor("researcher").id)[0]
    enrol = _keys(world) if keys else ""
    number = _incident(world)
    desk = desk_names(world, number)
    with begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    assert version is not None
    return {
        "incident": str(number),
        **desk,
        **_mailed(world, "access_officer"),
        "entry": "73",
        "grant": grant.id,
        "draft": draft_evidence(world),
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


def _mailed(world: World, who: str) -> dict[str, str]:
    """Have one of staff mailed a link to sign in by, and one to show that it is them."""
    works, address = world.box.works, "officer@example.org"
    with works.begin(OPERATOR) as work:
        work.session.get_one(Person, world.actor(who).id).email = address
    with works.begin(quiet=True) as work:
        entering.ask_to_sign_in(work, address, network="ab" * 32)
    with works.begin(read_only=True) as work:
        asked = work.session.query(Job).filter(Job.kind == entering.JOB).one().payload
    entering.mail_sign_in(works, asked)
    cookie = cookie_for(world, who)
    with works.begin(world.actor(who)) as work:
        proving.ask_to_prove(work, cookie)
    with works.begin(read_only=True) as work:
        mails = [job.payload.get("facts", {}) for job in work.session.query(Job)]
    found = {mail.get("link_path"): mail["link"] for mail in mails if mail.get("link")}
    return {
        "sign_in": links.sign_link(world.box.link_key, found[entering.PATH]),
        "prove": links.sign_link(world.box.link_key, found[proving.PROVE_PATH]),
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


# --- what staff work with -----------------------------------------------------------------------


def desk_names(world: World, incident: int) -> dict[str, str]:
    """Make what the pages of staff show: promotions in three states, a plan, papers, evidence."""
    begin = world.box.works.begin
    track, asked = _promotion(world)
    with begin(world.actor("security")) as work:
        advisory = incidents.show_incident(work, incident).advisories[0].id
        triaged = incidents.report(work, text="Spam in bulk.", network="ab" * 32).incident_id
        incidents.triage(
            work,
            triaged,
            severity="medium",
            blocking=True,
            links=incidents.Links(tracks=[track]),
        )
        reported = incidents.report(work, text="Odd reviews.", network="ab" * 32).incident_id
        held = releases.list_tracks(
            work, variant_id=catalog.load_variant(work, world.repos["partner"]).id
        )[0]
    with begin(world.actor("release_manager")) as work:
        proposal = release_service.propose_plan(work, PLAN, rationale="Two more weeks.")
    with begin(world.actor("access_officer")) as work:
        partners.draft_version(work, agreement="researcher-terms", text="# Terms\n\nShorter.\n")
    with begin(OPERATOR, quiet=True) as work:
        hook = notices.create_webhook(
            work, url="https://hooks.example/x", events=["hold.*"], link_key=world.box.link_key
        )
    return {
        "track": track,
        "promotion": str(asked),
        "held_track": held.id,
        "asking": str(_asking(world)),
        "approved": str(_approved(world)),
        "triaged": str(triaged),
        "reported": str(reported),
        "advisory": advisory,
        "proposal": str(proposal.id),
        "evidence": _evidence(world, track),
        "webhook": hook.id,
    }


PLAN = """plan: demo
title: Staged release, with a wait
stages:
  - {name: internal, audience: staff, listed: false}
  - {name: partner, audience: organisations, agreement: model-sharing}
  - {name: researcher, audience: people, agreement: researcher-terms}
  - {name: public, audience: everyone, minimum_dwell: P14D}
"""
ASKING = """plan: asking
title: A plan that asks
stages:
  - {name: internal, audience: staff, listed: false}
  - name: public
    audience: everyone
    quorum: {count: 2, roles: [reviewer]}
    gates:
      - {kind: manual, key: card-read, question: Did somebody else read the card}
"""


def _promotion(world: World) -> tuple[str, int]:
    """Have the researcher's model asked to be released to all, and approved once."""
    begin = world.box.works.begin
    with begin(world.actor("release_manager")) as work:
        variant = catalog.load_variant(work, world.repos["researcher"])
        track = releases.list_tracks(work, variant_id=variant.id)[0]
        row = release_service.open_promotion(
            work,
            track_id=track.id,
            to="public",
            rationale="Partners and researchers found nothing new in six weeks.",
        )
    with begin(world.actor("reviewer_a")) as work:
        release_service.approve(work, row.id, request_hash=row.request_hash, comment="Read it all.")
    return track.id, row.id


def _stored(world: World, path: str, body: bytes, kind: str) -> NewFile:
    with world.box.blobs.writer() as writer:
        writer.write(body)
        stored = writer.commit()
    return NewFile(path, stored.size, stored.sha256, stored.sha256[:40], kind == "weights", kind)


def side_track(world: World, repo_id: str, plan: str = ASKING) -> str:
    """Start a track of a revision of its own under a plan of its own, and return its id."""
    files = [
        _stored(world, "model.safetensors", repo_id.encode(), "weights"),
        _stored(world, "README.md", b"# Small\n", "model_card"),
    ]
    with world.box.works.begin(OPERATOR) as work:
        version = record_version(work, plan)
        family, _, label = repo_id.partition("/")
        catalog_service.ensure_family(work, family_id=family, name=family.capitalize())
        variant = catalog_service.ensure_variant(
            work, family_id=family, label=label, repo_id=repo_id
        )
        catalog_service.record_revision(
            work,
            variant_id=variant.id,
            files=files,
            message="First",
            parent_id=None,
            parameters=len(repo_id),
        )
        return release_service.create_track(work, repo_id=repo_id, plan=version.slug).id


def _asking(world: World) -> int:
    track_id = side_track(world, "side/asking")
    with world.box.works.begin(world.actor("release_manager")) as work:
        return release_service.open_promotion(
            work, track_id=track_id, to="public", rationale="The card is finished."
        ).id


def _approved(world: World) -> int:
    """Have a promotion approved by both reviewers, for somebody to apply."""
    begin = world.box.works.begin
    quick = ASKING[: ASKING.index("    gates:")].replace("asking", "quick")
    track_id = side_track(world, "side/approved", quick)
    with begin(world.actor("release_manager")) as work:
        row = release_service.open_promotion(
            work, track_id=track_id, to="public", rationale="Ready."
        )
    for who in ("reviewer_a", "reviewer_b"):
        with begin(world.actor(who)) as work:
            release_service.approve(work, row.id, request_hash=row.request_hash)
    return row.id


def _evidence(world: World, track_id: str) -> str:
    """Have a researcher hand a finding in about a track."""
    with world.box.works.begin(world.actor("researcher")) as work:
        track = releases.load_track(work, track_id)
        return evidence.hand_in(
            work,
            evidence.NewEvidence(
                type="benefit",
                metric="finding",
                title="Used in two classrooms",
                subject_sha256=catalog.load_revision(work, track.revision_id).manifest_sha256,
                source="A report of six pages.",
                fact_status="reported",
                measured_at=work.now,
                verdict="some_benefit",
                finding="Teachers used it to show what a language model gets wrong.",
            ),
        ).id
