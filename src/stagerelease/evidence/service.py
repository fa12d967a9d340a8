"""This slice's use cases, under one name for the faces and the floors above.

Retraction, dispute and supersession re-open promotion requests, which live above: faces go through
``releases.service.retract_evidence``, ``dispute_evidence`` and ``accept_evidence``, which call the
three here.
"""

from __future__ import annotations

from stagerelease.evidence.attaching import (
    Receiver,
    begin_attaching,
    check_may_attach,
    check_may_keep,
    note_attached,
    open_attachment,
)
from stagerelease.evidence.coordinating import CoordinationPage, list_records, show_record
from stagerelease.evidence.coordinating import add as add_coordination
from stagerelease.evidence.coordinating import update as update_coordination
from stagerelease.evidence.deciding import (
    accept,
    approve_public,
    dispute,
    reject,
    resolve,
    retract,
)
from stagerelease.evidence.formats import Defaults
from stagerelease.evidence.importing import (
    begin_import,
    import_evidence,
    read_file,
    submit_text,
    write_entries,
)
from stagerelease.evidence.measure import NewEvidence, read_interval
from stagerelease.evidence.reading import EvidencePage, Wanted, list_evidence, show_evidence
from stagerelease.evidence.schema import evidence_types
from stagerelease.evidence.submitting import (
    content_sha256,
    draft,
    edit,
    hand_in,
    open_draft,
    submit,
)

__all__ = [
    "CoordinationPage",
    "Defaults",
    "EvidencePage",
    "NewEvidence",
    "Receiver",
    "Wanted",
    "accept",
    "add_coordination",
    "approve_public",
    "begin_attaching",
    "begin_import",
    "check_may_attach",
    "check_may_keep",
    "content_sha256",
    "dispute",
    "draft",
    "edit",
    "evidence_types",
    "hand_in",
    "import_evidence",
    "list_evidence",
    "list_records",
    "note_attached",
    "open_attachment",
    "open_draft",
    "read_file",
    "read_interval",
    "reject",
    "resolve",
    "retract",
    "show_evidence",
    "show_record",
    "submit",
    "submit_text",
    "update_coordination",
    "write_entries",
]
