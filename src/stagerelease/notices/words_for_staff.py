"""What staff and authors are told: releases, evidence, incidents. Pure data."""

from __future__ import annotations

from collections.abc import Mapping

from stagerelease.notices.words import Words

STAFF = "Your role decides or watches this."
AUTHOR = "You wrote or decide on this evidence."

WORDS: Mapping[str, Words] = {
    "grant.renewal_asked": Words(
        "review",
        "Renewal asked: {repo_id}",
        "The holder of grant {grant} on {repo_id}, which ends {until}, asks that it go on: "
        "{message}",
        STAFF,
        "Renew it with a new end, or let it end.",
    ),
    "promotion.submitted": Words(
        "review",
        "Review: {repo_id} to {stage}",
        "Promotion request {promotion_id} asks to move {repo_id} ({kind}) from {from_stage} to "
        "{stage}: {rationale}",
        STAFF,
        "Look at its gates, and approve or reject.",
    ),
    "promotion.approved": Words(
        "release",
        "Approved: {repo_id} to {stage}",
        "Promotion request {promotion_id} has its quorum.",
        STAFF,
        "Apply it when its gates have passed.",
    ),
    "promotion.rejected": Words(
        "release",
        "Rejected: {repo_id} to {stage}",
        "Promotion request {promotion_id} was rejected: {reason}",
        STAFF,
        "Read why, and open a new one when it is mended.",
    ),
    "promotion.reopened": Words(
        "review",
        "Review again: {repo_id} to {stage}",
        "Promotion request {promotion_id} rests on evidence that no longer stands; its approvals "
        "are void. {reason}",
        STAFF,
        "Look at it again.",
    ),
    "promotion.changes_requested": Words(
        "release",
        "Changes asked: {repo_id} to {stage}",
        "The reviewers of promotion request {promotion_id} ask for changes: {reason}",
        "You opened this request.",
        "Edit it and submit it again.",
    ),
    "promotion.applied": Words(
        "release",
        "{repo_id} is at the {stage} stage",
        "{repo_id} ({kind}) moved from {from_stage} to {stage} by promotion request "
        "{promotion_id}.",
        STAFF,
        "Nothing.",
    ),
    "waiver.signed": Words(
        "release",
        "A gate is waived for {repo_id}",
        "The gate {gate} into {stage} is waived until {until}: {reason}",
        STAFF,
        "It is shown for ever. End it if it is wrong.",
    ),
    "track.withdrawn": Words(
        "security",
        "{repo_id} was withdrawn",
        "{repo_id} ({kind}) was withdrawn: {reason}",
        STAFF,
        "Nothing is delivered any more.",
    ),
    "hold.laid": Words(
        "security",
        "On hold: {scope} {scope_id}",
        "A hold was laid: {reason}",
        STAFF,
        "Nothing it covers is promoted or delivered until two people lift it.",
    ),
    "hold.lifted": Words(
        "security",
        "The hold on {scope} {scope_id} is lifted",
        "The hold was lifted by two people.",
        STAFF,
        "Nothing.",
    ),
    "plan.proposed": Words(
        "review",
        "A change of the plan {slug} is proposed",
        "'{title}' is proposed as its next version: {rationale}",
        STAFF,
        "Read what changes, and consent if you agree.",
    ),
    "plan.applied": Words(
        "release",
        "The plan {slug} has a new version",
        "Version {version} of {slug} is registered; tracks keep the version they began under.",
        STAFF,
        "Nothing.",
    ),
    "evidence.submitted": Words(
        "review",
        "Evidence to decide on: {title}",
        "{type} evidence ({metric}) was submitted.",
        AUTHOR,
        "Accept it, or say what is wrong with it.",
    ),
    "evidence.accepted": Words(
        "release",
        "Evidence accepted: {title}",
        "{type} evidence ({metric}) was accepted and may count at gates.",
        AUTHOR,
        "Nothing.",
    ),
    "evidence.rejected": Words(
        "release",
        "Evidence not accepted: {title}",
        "{reason}",
        AUTHOR,
        "Submit it again when that is mended.",
    ),
    "evidence.disputed": Words(
        "release",
        "Evidence disputed: {title}",
        "It does not count meanwhile: {reason}",
        AUTHOR,
        "Answer the dispute.",
    ),
    "evidence.resolved": Words(
        "release",
        "A dispute is resolved: {title}",
        "The evidence counts again. {reason}",
        AUTHOR,
        "Nothing.",
    ),
    "evidence.superseded": Words(
        "release",
        "Evidence superseded: {title}",
        "Newer evidence takes its place. {reason}",
        AUTHOR,
        "Nothing.",
    ),
    "evidence.retracted": Words(
        "release",
        "Evidence retracted: {title}",
        "Requests that used it are open again: {reason}",
        AUTHOR,
        "Look at what rested on it.",
    ),
    "evidence.returned": Words(
        "release",
        "Evidence sent back: {title}",
        "{reason}",
        AUTHOR,
        "Mend it, and submit it again.",
    ),
    **{
        f"incident.{event}": Words(
            "security",
            f"Incident {{incident_id}} {event}",
            f"Incident {{incident_id}} ({{severity}}) was {event}: {{title}}",
            STAFF,
            todo,
            at_once=True,
        )
        for event, todo in (
            ("reported", "Triage it."),
            ("triaged", "Confirm or dismiss it."),
            ("confirmed", "Everything a blocking incident covers is on hold. Act on it."),
            ("mitigated", "Close it when its outcome is known."),
            ("closed", "Lift its holds, two people, if the releases may go on."),
            ("reopened", "Act on it again."),
            ("dismissed", "Nothing."),
        )
    },
    "role.given": Words(
        "security",
        "{person} was given the role {role}",
        "{by} gave {person} the role {role}. Approvals, consents and waivers may count on it.",
        "You watch over who decides here.",
        "If you do not know this person or why, ask; an owner can take the role away.",
    ),
    "webhook.disabled": Words(
        "security",
        "A webhook was disabled",
        "Deliveries to webhook {webhook_id} failed: {reason}",
        STAFF,
        "Mend the receiver, enable it again, and replay what it missed.",
    ),
}
