"""This slice's use cases, under one name for the faces.

An applicant reads the form (``form_for``, ``decision_times``), saves a draft and sends it
(``save_draft``, ``submit_draft``; look at ``Outcome.refused`` after the Work has committed);
without an account they follow the mailed link (``show_confirmation`` on GET, ``confirm_address``
on POST). After that there is ``request_page``, ``reply``, ``withdraw``. Reviewers have ``queue``,
``assign``, ``ask``, ``add_note``, ``declare_conflict``, ``approve``, ``reject``, ``reopen``.
``submit_whole`` asks in one step with whole answers; ``submit`` and ``decide`` are the short ways
of Hub clients, which know no form.

Every step is an event that the applicant can read, and a log entry without a word of theirs.
"""

from __future__ import annotations

from stagerelease.access.asking import (
    RequestPage,
    list_requests,
    reply,
    request_page,
    show_request,
    submit,
    submit_whole,
    withdraw,
)
from stagerelease.access.confirming import (
    Confirmation,
    Confirmed,
    confirm_address,
    show_confirmation,
)
from stagerelease.access.deciding import (
    accept,
    approve,
    decide,
    find_for,
    grant,
    reject,
    reopen,
)
from stagerelease.access.drafting import (
    DraftRow,
    discard_draft,
    find_draft,
    save_draft,
    show_draft,
)
from stagerelease.access.formbook import (
    FormPage,
    FormRow,
    apply_form,
    form_for,
    lint_form,
    list_forms,
    show_form,
)
from stagerelease.access.queue import Queued, QueuePage, decision_times, queue
from stagerelease.access.reviewing import add_note, ask, assign, declare_conflict
from stagerelease.access.sending import Outcome, submit_draft
from stagerelease.access.sweeping import sweep_due, sweep_over

__all__ = [
    "Confirmation",
    "Confirmed",
    "DraftRow",
    "FormPage",
    "FormRow",
    "Outcome",
    "QueuePage",
    "Queued",
    "RequestPage",
    "accept",
    "add_note",
    "apply_form",
    "approve",
    "ask",
    "assign",
    "confirm_address",
    "decide",
    "decision_times",
    "declare_conflict",
    "discard_draft",
    "find_draft",
    "find_for",
    "form_for",
    "grant",
    "lint_form",
    "list_forms",
    "list_requests",
    "queue",
    "reject",
    "reopen",
    "reply",
    "request_page",
    "save_draft",
    "show_confirmation",
    "show_draft",
    "show_form",
    "show_request",
    "submit",
    "submit_draft",
    "submit_whole",
    "sweep_due",
    "sweep_over",
    "withdraw",
]
