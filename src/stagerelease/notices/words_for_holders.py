"""What those are told who hold, sign or ask: accounts, papers, access. Pure data."""

from __future__ import annotations

from collections.abc import Mapping

from stagerelease.notices.words import Words

HOLDER = "You hold this grant, or administer the organisation that does."
SIGNER = "You signed, or administer the organisation that did."
APPLICANT = "You asked for this access."
STAFF = "Your role decides or watches this."

WORDS: Mapping[str, Words] = {
    "account.sign_in": Words(
        "account",
        "Your sign-in link",
        "Somebody, probably you, asked to sign in. The link works once, until {until}.",
        "Your address belongs to an account here.",
        "Open the link and press the button. If it was not you, do nothing.",
        at_once=True,
    ),
    "account.prove": Words(
        "account",
        "Show that it is you",
        "You are about to do something that counts, and were asked to show that it is you. The "
        "link works once, until {until}.",
        "You asked for it while signed in.",
        "Open the link in the browser you work in, and press the button. If it was not you, sign "
        "out everywhere.",
        at_once=True,
    ),
    "token.expired": Words(
        "account",
        "Your token {display}… has ended",
        "The token '{name}' ended at {at}. Requests with it are refused.",
        "You made this token.",
        "Make a new one if you still need it.",
        "/me",
    ),
    "role.ended": Words(
        "account",
        "Your role {role} has ended",
        "Your role {role} ended at {at}.",
        "You held it.",
        "Ask an owner if it should go on.",
        "/me",
    ),
    "membership.ended": Words(
        "account",
        "A place on the roster of {organisation} has ended",
        "{person} is no longer on the roster of {organisation}; access that came with it is over.",
        "It is your place, or you administer the organisation.",
        "If that is wrong, ask the organisation's administrator.",
        "/me",
    ),
    "agreement.published": Words(
        "legal",
        "A new version of {agreement} is in force",
        "Version {version} of '{title}' is in force. {consequence}",
        SIGNER,
        "Read what changed, and sign if you want to go on.",
        "{link_path}",
    ),
    "agreement.reconsent_due": Words(
        "legal",
        "Sign {agreement} again by {until}",
        "'{title}' changed materially. Grants that rest on the old version are suspended at "
        "{until}, in {days} day(s), unless the new one is signed.",
        SIGNER,
        "Read what changed, and sign.",
        "{link_path}",
    ),
    "signature.signed": Words(
        "legal",
        "Signed: {agreement}, version {version}",
        "{typed_name} signed '{agreement}', version {version}. {effect} The signed document and "
        "its receipt can be fetched at any time.",
        SIGNER,
        "Keep the receipt.",
        "{link_path}",
    ),
    "signature.countersigned": Words(
        "legal",
        "Countersigned: {agreement}",
        "The publisher countersigned '{agreement}', version {version}. {effect}",
        SIGNER,
        "Nothing; the document now carries both.",
    ),
    "signature.terminated": Words(
        "legal",
        "Ended: the signature on {agreement}",
        "The signature on '{agreement}' was terminated: {reason} Grants that rest on it are "
        "suspended.",
        SIGNER,
        "Ask the access officer if that is wrong.",
    ),
    "signature.expired": Words(
        "legal",
        "Expired: the signature on {agreement}",
        "The signature on '{agreement}' ended at {until}. Grants that rest on it are suspended.",
        SIGNER,
        "Sign again if you want to go on.",
    ),
    "attestation.opened": Words(
        "legal",
        "Declare what became of the files you received",
        "A grant you held was revoked, and {files} file(s) had been delivered under it.",
        HOLDER,
        "Destroy the copies as the agreement says, and declare it.",
        "/me",
    ),
    "attestation.signed": Words(
        "legal",
        "Destruction declared for grant {grant}",
        "The holder declared what became of {files} file(s).",
        STAFF,
        "Nothing.",
    ),
    "grant.issued": Words(
        "access",
        "You have access to {repo_id}",
        "A grant lets you in to {repo_id} until {until}.",
        HOLDER,
        "Make a token and download.",
        "/me",
    ),
    "grant.renewed": Words(
        "access",
        "Your access to {repo_id} goes on",
        "Your grant was renewed until {until}.",
        HOLDER,
        "Nothing.",
        "/me",
    ),
    "grant.expiring": Words(
        "access",
        "Your access to {repo_id} ends in {days} day(s)",
        "Your grant on {repo_id} ends at {until}. Downloads stop at that instant.",
        HOLDER,
        "Ask for a renewal if you still need it.",
        "/me",
    ),
    "grant.expired": Words(
        "access",
        "Your access to {repo_id} has ended",
        "Your grant on {repo_id} ended at {until}.",
        HOLDER,
        "Copies you hold stay under your agreement. Ask again if you need more.",
        "/me",
    ),
    "grant.suspended": Words(
        "security",
        "Your access to {repo_id} is suspended",
        "Your grant on {repo_id} is suspended: {reason}",
        HOLDER,
        "Nothing is delivered meanwhile. Ask the access officer.",
        "/me",
    ),
    "grant.resumed": Words(
        "access",
        "Your access to {repo_id} is back",
        "Your grant on {repo_id} counts again, until {until}.",
        HOLDER,
        "Nothing.",
        "/me",
    ),
    "grant.revoked": Words(
        "security",
        "Your access to {repo_id} was revoked",
        "Your grant on {repo_id} was revoked: {reason}",
        HOLDER,
        "Stop using the files, and declare what became of them.",
        "/me",
    ),
    "request.confirm_address": Words(
        "account",
        "Confirm your address to send your request for {repo_id}",
        "Somebody, probably you, asked for access to {repo_id} with this address. Nothing is sent "
        "before you confirm. The link works once, until {until}.",
        "This address was typed into the request form.",
        "Open the link and press the button. If it was not you, do nothing.",
        at_once=True,
    ),
    "request.submitted": Words(
        "review",
        "Access request for {repo_id}",
        "A request for {repo_id} waits for a decision.",
        STAFF,
        "Take it, or assign it.",
        "/staff/requests",
    ),
    "request.assigned": Words(
        "review",
        "An access request is yours to decide",
        "The request for {repo_id} was assigned to you.",
        "You are its reviewer.",
        "Read and decide.",
        "/staff/requests",
    ),
    "request.question": Words(
        "access",
        "A question about your request for {repo_id}",
        "The reviewers ask: {question}",
        APPLICANT,
        "Answer on the request's page; it waits for you.",
        "/requests/{id}",
    ),
    "request.answered": Words(
        "review",
        "An applicant answered",
        "The applicant answered your question about {repo_id}.",
        "You review this request.",
        "Read and decide.",
        "/staff/requests",
    ),
    "request.approved": Words(
        "access",
        "Your request for {repo_id} is approved",
        "You are admitted until {until}. {next}",
        APPLICANT,
        "Sign the agreement if it is asked, then make a token and download.",
        "{link_path}",
    ),
    "request.rejected": Words(
        "access",
        "Your request for {repo_id} was not approved",
        "The reviewers' reason: {reason}",
        APPLICANT,
        "You may ask again after {may_reapply_after}.",
        "/requests/{id}",
    ),
    "request.withdrawn": Words(
        "review",
        "An access request was withdrawn",
        "The request for {repo_id} was withdrawn by its applicant.",
        STAFF,
        "Nothing.",
    ),
    "request.reopened": Words(
        "access",
        "Your request for {repo_id} is open again",
        "A decision on your request was taken back; it waits again.",
        APPLICANT,
        "Nothing; you will be told.",
        "/requests/{id}",
    ),
    "request.expired": Words(
        "access",
        "Your request for {repo_id} has lapsed",
        "Your request was not finished in time: {reason}",
        APPLICANT,
        "Ask again whenever you like.",
    ),
    "advisory.sent": Words(
        "security",
        "Advisory on a release you hold",
        "{text}",
        "You hold a grant that this incident touches.",
        "Read it, do what it says, and acknowledge it by {due_at}.",
        "/me",
        at_once=True,
    ),
}
