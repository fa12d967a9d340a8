"""What tests of pages share: sessions for the demo's people, and forms as a browser sends them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx

from live import World
from stagerelease.catalog import queries as catalog
from stagerelease.evidence import service as evidence
from stagerelease.identity import queries as people
from stagerelease.identity import sessions
from stagerelease.kernel.actor import OPERATOR

SAME = {"Sec-Fetch-Site": "same-origin"}
ANSWERS = {
    "name": "Ada Example",
    "email": "ada@university.example",
    "organisation": "University of Example",
    "role": "Postdoctoral researcher",
    "profile": "",
    "purpose": "Measure how well detectors find text of this model at several lengths.",
    "category": "detection",
    "data_use": "GRU",
    "public_output": "paper",
    "ends_on": "",
    "storage": "An encrypted volume that two named people can read.",
    "no_sharing": "on",
    "report_misuse": "on",
}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\u202egpj.exe & \u0000"


def cookie_for(world: World, who: str) -> str:
    """Sign one of the demo's people in and return their cookie."""
    with world.box.works.begin(read_only=True) as work:
        person = people.load_person(work, world.actor(who).name)
    with world.box.works.begin(OPERATOR, quiet=True) as work:
        return sessions.open_session(work, person.id)


def draft_evidence(world: World, who: str = "researcher") -> str:
    """Have somebody write evidence about the model they hold, and return its id."""
    with world.box.works.begin(world.actor(who)) as work:
        variant = catalog.load_variant(work, world.repos[who])
        revision = catalog.load_revision(work, str(catalog.find_ref(work, variant.id, "main")))
        new = evidence.NewEvidence(
            type="detectability",
            metric="accuracy",
            title="A fine-tuned detector",
            subject_sha256=revision.manifest_sha256,
            source="Run 12 of our laboratory",
            fact_status="verified",
            measured_at=work.now - timedelta(days=1),
            value=91.2,
            unit="percent",
            n=5_000,
            conditions={
                "detector": "RoBERTa-large",
                "sampler": "top-k 40",
                "text_length": 256,
                "text_length_unit": "tokens",
                "base_rate": 0.5,
            },
        )
        return evidence.draft(work, new).id


def browser(world: World, who: str | None = None, **options: Any) -> httpx.Client:
    """Return a client that behaves as a browser of ``who`` would, redirects left to the test."""
    cookies = {"sr": cookie_for(world, who)} if who else {}
    return httpx.Client(
        base_url=world.base_url,
        cookies=cookies,
        headers={"Accept": "text/html,application/xhtml+xml"} | SAME,
        timeout=30,
        **options,
    )
