"""Notices against a real mail server and real receivers: who is told, how, once, and safely."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email import message_from_bytes, policy
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from make_partners import database_url, partnered, world
from sqlalchemy import select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from receiving import Receiver, receiving
from stagerelease.identity import links
from stagerelease.identity.tables import Person
from stagerelease.jobs.outbox import emit
from stagerelease.jobs.runner import run_one
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from stagerelease.ledger import queries as ledger
from stagerelease.notices import hooks, posting, service
from stagerelease.notices import jobs as notice_jobs
from stagerelease.notices.rules import is_public
from stagerelease.notices.tables import MailBounce, Notice, WebhookDelivery
from stagerelease.settings import Settings

__all__ = ["database_url", "partnered", "world"]  # fixtures
KEY = b"k" * 32
DAY = timedelta(days=1)


class Mailbox:
    """A mail server of our own: keeps what it takes, answers what it is told to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.answers: list[str] = []  # next answers to RCPT; empty: accept

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if self.answers:
            answer = self.answers.pop(0)
            if answer == "drop":
                server.transport.abort()
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 taken"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    box.port = port
    yield box
    controller.stop()


@pytest.fixture
def addressed(world):
    """The world, its people with addresses."""
    with world.works.begin(OPERATOR) as work:
        for person in work.session.scalars(select(Person)):
            person.email = f"{person.handle}@example.org"
    return world


def run(world, port: int | None, *, loopback: bool = False, most: int = 200) -> int:
    """Run what is due now, as the worker does; return how many jobs ran."""
    settings = Settings(
        smtp_url=f"smtp://127.0.0.1:{port}" if port else "",
        public_url="https://models.example.org",
        webhooks_to_loopback=loopback,
    )
    handlers = notice_jobs.handlers(settings, KEY)
    count = 0
    given_up = notice_jobs.GIVEN_UP
    while count < most and run_one(world.works, handlers, "test", given_up=given_up):
        count += 1
    return count


def say(world, event="grant.issued", **options):
    defaults = {
        "subject": "grant:grt_1",
        "people": [world.id("rex")],
        "facts": {"repo_id": "gpt2-mini/one", "until": "2027-01-01T00:00:00Z"},
    }
    with world.works.begin(SYSTEM) as work:
        emit(work, event, **(defaults | options))


def notices(world) -> list[Notice]:
    with world.works.begin(read_only=True) as work:
        rows = list(work.session.scalars(select(Notice).order_by(Notice.id)))
        work.session.expunge_all()
        return rows


# --- mail ----------------------------------------------------------------------------------------


def test_a_mail_says_what_happened_why_and_what_to_do(addressed, mailbox):
    say(addressed)
    run(addressed, mailbox.port)
    (mail,) = mailbox.taken
    assert mail["To"] == "rex@example.org"
    assert mail["Subject"] == "You have access to gpt2-mini/one"
    assert mail["Auto-Submitted"] == "auto-generated"
    plain = mail.get_body(("plain",)).get_content()
    for words in ("2027-01-01", "What to do: Make a token", "Why you get this: You hold"):
        assert words in plain
    assert "https://models.example.org/me" in plain
    assert "https://models.example.org/me" in mail.get_body(("html",)).get_content()
    (notice,) = notices(addressed)
    assert (notice.state, notice.error) == ("sent", None)
    assert mail["Message-ID"] == f"<{notice.id}@models.example.org>"


def test_hostile_words_stay_words(addressed, mailbox):
    evil = "x\r\nBcc: all@example.org\r\n\r\n<script>alert(1)</script>{0.__class__}{repo_id}"
    say(addressed, facts={"repo_id": evil, "until": evil})
    run(addressed, mailbox.port)
    (mail,) = mailbox.taken
    assert mail["Bcc"] is None
    assert "\n" not in mail["Subject"]
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "{0.__class__}" in mail.get_body(("plain",)).get_content()


def test_one_event_tells_each_once_however_it_names_them(addressed, mailbox):
    lab = addressed.organisation("ann")
    say(
        addressed,
        people=[addressed.id("ann"), addressed.id("bot")],
        organisations=[lab],
        roles=["security"],
    )
    run(addressed, mailbox.port)
    assert sorted(m["To"] for m in mailbox.taken) == ["ann@example.org", "sam@example.org"]
    with addressed.works.begin(SYSTEM) as work:  # the job runs again, as after a crash
        job = work.session.scalars(select(Job).where(Job.kind == "notices.deliver")).one()
        job.state, job.run_at = "queued", work.now
    run(addressed, mailbox.port)
    assert len(mailbox.taken) == 2


def test_a_link_is_signed_only_when_it_is_mailed(addressed, mailbox):
    with addressed.works.begin(SYSTEM) as work:
        link = links.make_link(
            work,
            purpose="access.confirm",
            subject="access_draft:x",
            person_id=None,
            address="new@example.org",
            lifetime=DAY,
        )
    say(
        addressed,
        "request.confirm_address",
        people=[],
        facts={"link": link, "link_path": "/access/confirm", "repo_id": "a/b"},
    )
    run(addressed, mailbox.port)
    (mail,) = mailbox.taken
    assert mail["To"] == "new@example.org"
    token = links.sign_link(KEY, link)
    assert (
        f"https://models.example.org/access/confirm?t={token}"
        in mail.get_body(("plain",)).get_content()
    )
    with addressed.works.begin(read_only=True) as work:
        stored = json.dumps([j.payload for j in work.session.scalars(select(Job))])
    assert token not in stored
    assert token not in "".join(n.said + n.path for n in notices(addressed))


def test_a_refusal_for_good_is_not_repeated_and_is_shown(addressed, mailbox):
    mailbox.answers = ["550 no such user"]
    say(addressed)
    run(addressed, mailbox.port)
    (notice,) = notices(addressed)
    assert (notice.state, notice.error) == ("failed", "550 no such user")
    with addressed.works.begin(read_only=True) as work:
        assert work.session.scalars(select(MailBounce.person_id)).all() == [addressed.id("rex")]
    with addressed.begin("aud", read_only=True) as work:
        assert [n.error for n in service.list_notices(work, state="failed")] == ["550 no such user"]


@pytest.mark.parametrize("trouble", ["451 later", "drop"])
def test_trouble_that_passes_is_tried_again(addressed, mailbox, clock, trouble):
    mailbox.answers = [trouble]
    say(addressed)
    run(addressed, mailbox.port)
    assert mailbox.taken == []
    assert [n.state for n in notices(addressed)] == ["queued"]
    clock.move(timedelta(minutes=1))
    run(addressed, mailbox.port)
    assert len(mailbox.taken) == 1
    assert [n.state for n in notices(addressed)] == ["sent"]


def test_a_mail_that_never_left_has_failed_and_is_sent_again_by_hand(addressed, mailbox, clock):
    began = clock.now()
    say(addressed)
    for _ in range(9):
        mailbox.answers = ["451 later"]
        run(addressed, mailbox.port)
        clock.move(timedelta(hours=9))
    (notice,) = notices(addressed)
    assert (notice.state, notice.error) == ("failed", "451")
    with addressed.works.begin(read_only=True) as work:
        assert work.session.scalars(select(MailBounce)).all() == []  # the address is not at fault
    with pytest.raises(Forbidden), addressed.begin("mia") as work:
        service.send_again(work, notice_id=notice.id)
    with addressed.works.begin(OPERATOR) as work:
        with pytest.raises(Invalid):
            service.send_again(work)
        with pytest.raises(NotFound):
            service.send_again(work, notice_id="ntc_none")
        assert service.send_again(work, since=clock.now()) == 0
        assert service.send_again(work, since=began) == 1
        with pytest.raises(Conflict):
            service.send_again(work, notice_id=notice.id)  # it is queued by now
    run(addressed, mailbox.port)
    (mail,) = mailbox.taken
    assert notice.id in mail["Message-ID"]
    assert [(n.state, n.error) for n in notices(addressed)] == [("sent", None)]


def test_a_link_that_opens_nothing_any_more_is_not_mailed_again(addressed, mailbox, clock):
    with addressed.works.begin(SYSTEM) as work:
        link = links.make_link(
            work,
            purpose="access.confirm",
            subject="access_draft:x",
            person_id=None,
            address="new@example.org",
            lifetime=DAY,
        )
    mailbox.answers = ["550 no such user"]
    facts = {"link": link, "link_path": "/access/confirm", "repo_id": "a/b"}
    say(addressed, "request.confirm_address", people=[], facts=facts)
    run(addressed, mailbox.port)
    (notice,) = notices(addressed)
    began = clock.now()
    clock.move(DAY)
    with addressed.works.begin(OPERATOR) as work:
        assert service.send_again(work, since=began) == 0
        with pytest.raises(Conflict) as refused:
            service.send_again(work, notice_id=notice.id)
    assert refused.value.reason == "notice.link"


def test_without_a_server_notices_are_kept_to_be_read(addressed):
    say(addressed)
    run(addressed, None)
    assert [n.state for n in notices(addressed)] == ["kept"]
    with addressed.begin("rex", read_only=True) as work:
        (mine,) = service.my_notices(work)
        assert mine.title == "You have access to gpt2-mini/one"
    with addressed.begin("oto", read_only=True) as work:
        assert service.my_notices(work) == []
        with pytest.raises(Forbidden):
            service.list_notices(work)


def test_people_choose_and_what_matters_cannot_be_turned_off(addressed, mailbox, clock):
    with addressed.begin("rex") as work:
        service.choose(work, "access", "digest")
        for group, mode, wrong in (
            ("security", "off", Conflict),
            ("access", "never", Invalid),
            ("gossip", "off", Invalid),
        ):
            with pytest.raises(wrong):
                service.choose(work, group, mode)
    for _ in range(3):
        say(addressed)
    say(addressed, "grant.revoked", facts={"repo_id": "a/b", "reason": "Broken."})
    run(addressed, mailbox.port)
    assert [m["Subject"] for m in mailbox.taken] == ["Your access to a/b was revoked"]
    server = notice_jobs.server_of(
        Settings(smtp_url=f"smtp://127.0.0.1:{mailbox.port}", public_url="https://m.example.org"),
        KEY,
    )
    assert notice_jobs.send_digests(addressed.works, server) == 0
    clock.move(DAY)
    assert notice_jobs.send_digests(addressed.works, server) == 1
    assert notice_jobs.send_digests(addressed.works, server) == 0
    assert mailbox.taken[-1]["Subject"] == "3 notices of today"
    with addressed.begin("rex") as work:
        service.choose(work, "access", "off")
    say(addressed)
    run(addressed, mailbox.port)
    assert len(mailbox.taken) == 2


@pytest.mark.parametrize(
    "url",
    ["http://x", "smtp://", "smtp://u:secret@h", "smtp://h?tls", "smtp:///x"],
)
def test_a_mail_server_is_written_right_or_refused(url, tmp_path):
    with pytest.raises(Invalid) as caught:
        notice_jobs.server_of(Settings(smtp_url=url), KEY)
    assert "secret" not in caught.value.sentence
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    with pytest.raises(Invalid) as caught:
        notice_jobs.server_of(Settings(smtp_url="smtp://u@h", smtp_password_file=secret), KEY)
    assert caught.value.reason == "mail.clear"


# --- webhooks ------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def hook(world, url, events=(), who="mia"):
    with world.begin(who) as work:
        return service.create_webhook(
            work, url=url, events=list(events), link_key=KEY, loopback=True
        )


def deliveries(world) -> list[WebhookDelivery]:
    with world.works.begin(read_only=True) as work:
        rows = list(work.session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))
        work.session.expunge_all()
        return rows


def test_a_post_is_signed_and_tells_ids_only(world, receiver):
    made = hook(world, receiver.url, ["grant.*"])
    say(world, facts={"repo_id": "a/b", "reason": "Because Ann said so", "until": "2027"})
    say(world, "plan.applied", people=[], facts={"slug": "ours"})
    run(world, None, loopback=True)
    ((headers, body),) = receiver.posts
    payload = Verifier(made.secret).verify(body, headers)
    assert payload["type"] == "grant.issued"
    assert payload["data"] == {"subject": "grant:grt_1", "repo_id": "a/b", "until": "2027"}
    for altered in (body + b" ", body.replace(b"2027", b"2028")):
        with pytest.raises(WebhookVerificationError):
            Verifier(made.secret).verify(altered, headers)
    old = headers | {"webhook-timestamp": str(int(time.time()) - 3600)}
    with pytest.raises(WebhookVerificationError):
        Verifier(made.secret).verify(body, old)
    (delivery,) = deliveries(world)
    assert (delivery.state, delivery.status) == ("delivered", 200)
    assert len(delivery.answer or "") <= 1024
    with world.begin("mia", read_only=True) as work:
        assert [w.secret for w in service.list_webhooks(work)] == [None]
    with world.begin("aud", read_only=True) as work, pytest.raises(Forbidden):
        service.list_webhooks(work)


def test_failures_are_tried_on_schedule_under_one_id_and_then_given_up(world, receiver, clock):
    made = hook(world, receiver.url)
    receiver.answers = [500] * 50
    say(world)
    run(world, None, loopback=True)
    assert len(receiver.posts) == 1
    run(world, None, loopback=True)
    assert len(receiver.posts) == 1, "not before its time"
    clock.move(timedelta(seconds=6))
    run(world, None, loopback=True)
    assert len(receiver.posts) == 2
    while clock.now() < made.created_at + 7 * DAY:
        clock.move(timedelta(hours=6))
        run(world, None, loopback=True)
    assert len({h["webhook-id"] for h, _ in receiver.posts}) == 1
    assert 8 <= len(receiver.posts) <= 16
    with world.begin("mia") as work:
        (row,) = service.list_webhooks(work)
        assert (row.disabled_at is not None, row.disabled_for) == (True, "It failed for five days.")
        with pytest.raises(Conflict):
            service.replay(work, made.id, since=made.created_at)
        service.enable_webhook(work, made.id)
        receiver.answers = []
        assert service.replay(work, made.id, since=made.created_at) >= 1
    run(world, None, loopback=True)
    assert all(d.state == "delivered" for d in deliveries(world) if d.event == "grant.issued")


def test_gone_disables_and_a_redirect_leads_nowhere(world, receiver):
    hook(world, receiver.url)
    receiver.answers = [302, 410]
    say(world)
    run(world, None, loopback=True)
    assert [d.status for d in deliveries(world)] == [302]
    say(world)
    run(world, None, loopback=True)
    with world.begin("mia", read_only=True) as work:
        (row,) = service.list_webhooks(work)
    assert row.disabled_for == "It answered 410 Gone."


def delete_hook(world, webhook_id):
    with world.begin("mia") as work:
        service.disable_webhook(work, webhook_id)
        service.delete_webhook(work, webhook_id)


def test_only_what_is_stopped_is_deleted_and_its_deliveries_go_with_it(world, receiver):
    made, other = hook(world, receiver.url), hook(world, receiver.url)
    say(world)
    run(world, None, loopback=True)
    with world.begin("mia") as work, pytest.raises(Conflict, match="still posted"):
        service.delete_webhook(work, made.id)
    with world.begin("aud") as work, pytest.raises(Forbidden):
        service.delete_webhook(work, made.id)
    delete_hook(world, made.id)
    assert {d.webhook_id for d in deliveries(world)} == {other.id}
    with world.begin("mia", read_only=True) as work:
        assert [w.id for w in service.list_webhooks(work)] == [other.id]
        newest = ledger.search(work, ledger.Search(type="webhook."), before=None, limit=1).rows[0]
        assert newest.leaf["type"] == "webhook.deleted"
    with world.begin("mia") as work, pytest.raises(NotFound):
        service.delete_webhook(work, made.id)


def test_a_webhook_deleted_while_it_answers_is_tried_no_more(world, receiver):
    made = hook(world, receiver.url)
    receiver.answers = [500] * 3
    receiver.meanwhile = lambda: delete_hook(world, made.id)
    say(world)
    run(world, None, loopback=True)
    assert len(receiver.posts) == 1
    with world.works.begin(read_only=True) as work:
        jobs = work.session.scalars(select(Job).where(Job.kind == "notices.webhook")).all()
        assert [job.last_error for job in jobs] == [None]


def test_both_secrets_sign_for_a_day_after_a_rotation(world, receiver, clock):
    first = hook(world, receiver.url)
    with world.begin("mia") as work:
        second = service.rotate_secret(work, first.id, link_key=KEY)
    for verified in ((first.secret, second.secret), (second.secret,)):
        say(world)
        run(world, None, loopback=True)
        headers, body = receiver.posts[-1]
        for secret in verified:
            Verifier(secret).verify(body, headers)
        clock.move(2 * DAY)
    with pytest.raises(WebhookVerificationError):
        Verifier(first.secret).verify(body, headers)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.org/", "ftp://example.org", "https://", "https://u:p@example.org/"),
        *("https://example.org/#x", "https://example.org:0/", "https://exa mple.org/", "x" * 600),
    ],
)
def test_only_https_without_credentials_is_registered(world, url):
    with world.begin("mia") as work, pytest.raises(Invalid):
        service.create_webhook(work, url=url, events=[], link_key=KEY)
    with world.begin("mia") as work, pytest.raises(Invalid):
        service.create_webhook(work, url="https://example.org/", events=["no.such"], link_key=KEY)


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1"),
    *("fec0::1", "feff::1", "192.88.99.1", "3fff::1", "2002:c058:6301::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "x"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_inside_is_public(address):
    assert not is_public(address)


def test_public_addresses_are_public():
    assert is_public("8.8.8.8")
    assert is_public("2001:4860:4860::8888")


def test_a_name_that_leads_inside_is_never_connected_to(world, receiver):
    """Without the setting for tests, this very machine is refused at each attempt."""
    hook(world, receiver.url)
    say(world)
    run(world, None, loopback=False)
    (delivery,) = deliveries(world)
    assert (delivery.status, receiver.posts) == (None, [])
    assert "webhook.ssrf" in (delivery.answer or "")
    attempt = posting.post("https://localhost/", "evt_1", {}, ["whsec_AAAA"], loopback=False)
    assert attempt.status is None


def test_a_receiver_that_never_answers_is_left(world, monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT", httpx.Timeout(0.5))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        attempt = posting.post(url, "evt_1", {}, ["whsec_AAAA"], loopback=True)
    assert (attempt.status, attempt.answer) == (None, "ReadTimeout")


def test_secrets_are_not_readable_in_the_database(world, receiver):
    made = hook(world, receiver.url)
    with world.works.begin(read_only=True) as work:
        stored = work.session.get_one(hooks.Webhook, made.id).secret
    assert made.secret.encode() not in stored
    assert hooks.locker(KEY).decrypt(stored).decode() == made.secret


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """A receiver that sends these pieces one by one, for as long as somebody is there."""
    asked: list[bytes] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            line, _ = listening.accept()
            with line, suppress(OSError):
                asked.append(line.recv(65536))
                for piece in pieces:
                    line.sendall(piece)
                    time.sleep(pause)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", asked
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", None),
        (b"HT", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 250\r\n\r\n", 200),
    ],
    ids=["head", "first line", "body"],
)
def test_a_receiver_that_drips_is_left_in_time(monkeypatch, before, status):
    """Each byte starts a read's timeout anew; the whole exchange has one of its own."""
    monkeypatch.setattr(posting, "LONGEST_WAIT", 0.5)
    began = time.monotonic()
    with answering(before, *([b"a"] * 100), pause=0.1) as (url, _):
        attempt = posting.post(url, "evt_1", {}, ["whsec_AAAA"], loopback=True)
        took = time.monotonic() - began
    assert took < 3
    assert attempt.status == status
    assert status or attempt.answer == "TooSlow"


def test_what_a_receiver_packs_is_not_unpacked():
    packed = gzip.compress(gzip.compress(bytes(8 << 20)))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n"
    with answering(head % len(packed) + packed) as (url, asked):
        attempt = posting.post(url, "evt_1", {}, ["whsec_AAAA"], loopback=True)
    assert attempt.status == 200
    assert b"accept-encoding: identity" in asked[0].lower()
    assert len(attempt.answer) <= posting.LONGEST_ANSWER
    assert not attempt.answer.startswith("\x00")
