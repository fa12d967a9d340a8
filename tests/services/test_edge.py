"""Delivery by the edge: what is counted from its log, and who is cut."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest
from make_release import PEOPLE, REPO, database_url, staff, staffed, track
from sqlalchemy import func, insert, select

from stagerelease.catalog import queries as catalog
from stagerelease.downloads import edge
from stagerelease.downloads.edge import EdgeWatch, read_log
from stagerelease.downloads.tables import Download, EdgeLog, EdgePassage, Transfer
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.releases import service as releases

__all__ = ["database_url", "staff", "staffed", "track"]  # fixtures
SIZE = 9


def pass_on(works, staff, who="mia", path="model.safetensors"):
    """Permit one answer at the edge and return its ticket."""
    with works.begin(read_only=True) as work:
        variant = catalog.load_variant(work, REPO)
        commit = catalog.find_ref(work, variant.id, "main")
    with works.begin(staff.actor(who), quiet=True) as work:
        return edge.prepare(work, repo_id=REPO, rev=commit, path=path, record=True)


def line(ticket, *, status=200, first=0, sent=SIZE, done=True) -> bytes:
    values = {
        "passage": ticket.passage_id,
        "at": "2026-03-02T09:00:00+00:00",
        "status": status,
        "range": f"bytes {first}-{SIZE - 1}/{SIZE}" if status == 206 else "",
        "bytes": sent,
        "done": "OK" if done else "",
    }
    return json.dumps(values).encode() + b"\n"


def rows(works, table):
    with works.begin(read_only=True) as work:
        found = work.session.execute(select(table)).scalars().all()
        work.session.expunge_all()
        return found


def the_download(works) -> Download:
    (row,) = rows(works, Download)
    return row


# --- counting -----------------------------------------------------------------------------------


def test_a_whole_answer_completes_the_download_once(works, staff, track, tmp_path):
    log = tmp_path / "edge.log"
    log.write_bytes(line(pass_on(works, staff)))
    assert read_log(works, log) == 1
    assert read_log(works, log) == 0
    done = the_download(works)
    assert (done.bytes_sent, done.completed_at) == (SIZE, works.clock.now())
    assert rows(works, EdgePassage) == []


def test_reading_again_from_the_start_counts_nothing_twice(works, staff, track, tmp_path):
    log = tmp_path / "edge.log"
    log.write_bytes(line(pass_on(works, staff)) * 3)
    assert read_log(works, log) == 3
    with works.begin(SYSTEM) as work:
        for place in work.session.execute(select(EdgeLog)).scalars():
            work.session.delete(place)
    assert read_log(works, log) == 3
    assert the_download(works).bytes_sent == SIZE
    assert len(rows(works, Transfer)) == 1


def test_parts_of_one_download_complete_it_together(works, staff, track, tmp_path):
    first, second = pass_on(works, staff), pass_on(works, staff)
    assert first.download_id == second.download_id
    assert first.passage_id != second.passage_id
    log = tmp_path / "edge.log"
    log.write_bytes(line(first, sent=4, done=False))
    read_log(works, log)
    assert the_download(works).completed_at is None
    with log.open("ab") as out:
        out.write(line(second, status=206, first=4, sent=5))
    assert read_log(works, log) == 1
    assert the_download(works).completed_at is not None
    assert sorted(t.outcome for t in rows(works, Transfer)) == ["client_left", "whole"]


def test_parts_in_one_batch_complete_it_together(works, staff, track, tmp_path):
    first, second = pass_on(works, staff), pass_on(works, staff)
    log = tmp_path / "edge.log"
    log.write_bytes(line(first, sent=4, done=False) + line(second, status=206, first=4, sent=5))
    assert read_log(works, log) == 2
    assert the_download(works).bytes_sent == SIZE
    assert the_download(works).completed_at is not None


def test_a_line_without_its_end_waits_for_it(works, staff, track, tmp_path):
    one, two = pass_on(works, staff), pass_on(works, staff)
    log = tmp_path / "edge.log"
    whole = line(two)
    log.write_bytes(line(one, sent=1, done=False) + whole[:30])
    assert read_log(works, log) == 1
    assert read_log(works, log) == 0
    with log.open("ab") as out:
        out.write(whole[30:])
    assert read_log(works, log) == 1
    assert the_download(works).completed_at is not None


def test_broken_lines_are_skipped_and_the_rest_counts(works, staff, track, tmp_path):
    ticket = pass_on(works, staff)
    log = tmp_path / "edge.log"
    unknown = line(ticket).replace(ticket.passage_id.encode(), b"psg_" + b"0" * 26)
    log.write_bytes(b"not json\n\n\xff\xfe\n{}\n" + unknown + line(ticket))
    assert read_log(works, log) == 6
    assert the_download(works).completed_at is not None


def test_a_rotated_log_is_read_to_its_end(works, staff, track, tmp_path):
    tickets = [pass_on(works, staff) for _ in range(3)]
    log = tmp_path / "edge.log"
    log.write_bytes(line(tickets[0], sent=0, done=False))
    read_log(works, log)
    with log.open("ab") as out:  # written after we looked, before the rotation
        out.write(line(tickets[1], sent=4, done=False))
    log.rename(tmp_path / "edge.log.1")
    log.write_bytes(line(tickets[2], status=206, first=4, sent=5))
    assert read_log(works, log) == 2
    with (tmp_path / "edge.log.1").open("ab") as out:  # a worker of nginx that reopens late
        out.write(line(pass_on(works, staff), sent=0, done=False))
    assert read_log(works, log) == 1
    assert rows(works, EdgePassage) == []
    assert the_download(works).completed_at is not None


def test_a_log_emptied_in_place_is_a_new_log(works, staff, track, tmp_path):
    log = tmp_path / "edge.log"
    log.write_bytes(line(pass_on(works, staff), sent=0, done=False) * 5)
    read_log(works, log)
    log.write_bytes(line(pass_on(works, staff)))
    assert read_log(works, log) == 1
    assert the_download(works).completed_at is not None


def test_no_log_yet_is_nothing_to_do(works, tmp_path):
    assert read_log(works, tmp_path / "edge.log") == 0
    (tmp_path / "edge.log").touch()
    assert read_log(works, tmp_path / "edge.log") == 0


def test_several_workers_count_each_line_once(works, staff, track, tmp_path):
    log = tmp_path / "edge.log"
    tickets = [pass_on(works, staff) for _ in range(20)]
    log.write_bytes(b"".join(line(t, sent=1, done=False) for t in tickets))
    errors = []

    def read():
        try:
            read_log(works, log)
        except Conflict as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A worker that lost the race for a new file's first row tries again at its next turn.
    assert len(errors) < 4
    read_log(works, log)
    assert the_download(works).bytes_sent == 20


# --- cutting ------------------------------------------------------------------------------------


def stop_by_token(works, staff):
    with works.begin(OPERATOR) as work:
        identity.revoke_token(work, staff.actor("mia").token_id)


def stop_by_role(works, staff):
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="mia", role=PEOPLE["mia"][0])


def stop_by_account(works, staff):
    with works.begin(OPERATOR) as work:
        identity.disable_person(work, "mia")


def stop_by_hold(works, staff):
    with works.begin(staff.actor("sam")) as work:
        releases.lay_hold(
            work, scope="everything", scope_id=None, reason="Leak", public_reason="Under review."
        )


@pytest.mark.parametrize(
    "stop", [stop_by_token, stop_by_role, stop_by_account, stop_by_hold], ids=lambda f: f.__name__
)
def test_whatever_ends_a_permission_cuts_its_passage_once(works, staff, track, stop, tmp_path):
    watch = EdgeWatch(works)
    ticket = pass_on(works, staff)
    before = watch.cuts()
    assert watch.cuts() == before
    stop(works, staff)
    assert watch.cuts() == before + 1
    assert watch.cuts() == before + 1
    assert EdgeWatch(works).cuts() == before + 1  # another process agrees
    log = tmp_path / "edge.log"
    log.write_bytes(line(ticket, sent=4, done=False))
    read_log(works, log)
    assert [(t.outcome, t.bytes_sent) for t in rows(works, Transfer)] == [("cut", 4)]


def test_other_decisions_cut_nobody(works, staff, track):
    watch = EdgeWatch(works)
    pass_on(works, staff)
    before = watch.cuts()
    with works.begin(OPERATOR) as work:
        identity.create_person(work, handle="new", display_name="New")
    stop_by_other = staff.actor("nia").token_id
    with works.begin(OPERATOR) as work:
        identity.revoke_token(work, stop_by_other)
    assert watch.cuts() == before


def test_an_answer_that_has_ended_is_not_cut(works, staff, track, tmp_path):
    watch = EdgeWatch(works)
    log = tmp_path / "edge.log"
    log.write_bytes(line(pass_on(works, staff)))
    before = watch.cuts()
    read_log(works, log)
    stop_by_token(works, staff)
    assert watch.cuts() == before


def test_a_second_token_of_one_download_is_cut_by_itself(works, staff, track):
    """The download is one and was begun with the first token; the bytes flow by the second."""
    watch = EdgeWatch(works)
    first = pass_on(works, staff)
    with works.begin(OPERATOR) as work:
        token, staff.tokens["mia"] = identity.create_token(work, person="mia", name="second")
    second = pass_on(works, staff)
    assert first.download_id == second.download_id
    before = watch.cuts()
    with works.begin(OPERATOR) as work:
        identity.revoke_token(work, token.id)
    assert watch.cuts() == before + 1
    cut = {row.id: row.cut_at is not None for row in rows(works, EdgePassage)}
    assert cut == {first.passage_id: False, second.passage_id: True}


def test_an_end_by_time_cuts_without_anybody_acting(works, staff, track):
    with works.begin(OPERATOR) as work:
        _, staff.tokens["mia"] = identity.create_token(
            work, person="mia", name="short", expires_at=work.now + timedelta(minutes=5)
        )
    watch = EdgeWatch(works)
    pass_on(works, staff)
    before = watch.cuts()
    works.clock.move(timedelta(minutes=6))
    assert watch.cuts() == before + 1


def test_a_passage_that_never_ends_is_cut_after_a_day(works, staff, track):
    watch = EdgeWatch(works)
    pass_on(works, staff)
    before = watch.cuts()
    works.clock.move(edge.LONGEST + timedelta(seconds=1))
    assert watch.cuts() == before + 1
    works.clock.move(edge.KEPT + timedelta(seconds=1))
    pass_on(works, staff)
    stop_by_token(works, staff)
    assert watch.cuts() == before + 2
    with works.begin(read_only=True) as work:
        left = work.session.execute(select(func.count()).select_from(EdgePassage)).scalar_one()
    assert left == 1  # the old one went when the new one was cut


def test_a_refused_caller_leaves_no_passage(works, staff, track):
    with pytest.raises(NotFound):
        pass_on(works, staff, who="nia")
    assert rows(works, EdgePassage) == []


# --- what is left behind ------------------------------------------------------------------------


def test_what_never_reached_the_edge_is_forgotten(works, staff, track):
    ticket, other = pass_on(works, staff), pass_on(works, staff)
    edge.abandon(works, ticket.passage_id)
    edge.abandon(works, ticket.passage_id)
    assert [row.id for row in rows(works, EdgePassage)] == [other.passage_id]


def test_what_was_left_behind_cuts_once_a_day_at_most(works, staff, track):
    """A client can hang up between the answer and nginx: one an hour is left behind, for days."""
    watch = EdgeWatch(works)
    start, counts = watch.cuts(), []
    for _ in range(24 * 4):
        pass_on(works, staff)
        works.clock.move(timedelta(hours=1))
        counts.append(watch.cuts() - start)
    assert counts[:24] == [0] * 24
    assert counts[-1] == 3
    with_all = EdgeWatch(works)
    assert with_all.cuts() - start == 3


def test_a_cut_for_one_that_takes_too_long_leaves_what_has_just_begun(works, staff, track):
    watch = EdgeWatch(works)
    old = pass_on(works, staff)
    works.clock.move(edge.LONGEST)
    new = pass_on(works, staff)
    works.clock.move(timedelta(seconds=1))
    before = watch.cuts()
    cut = {row.id: row.cut_at is not None for row in rows(works, EdgePassage)}
    assert cut == {old.passage_id: True, new.passage_id: False}
    stop_by_token(works, staff)
    assert watch.cuts() == before + 1


def test_a_file_open_to_all_has_no_passage(works, staff, track):
    """Nobody would be cut, and nothing is counted: the edge just sends it."""
    with works.begin(read_only=True) as work:
        variant = catalog.load_variant(work, REPO)
        commit = str(catalog.find_ref(work, variant.id, "main"))
    with works.begin(OPERATOR, quiet=True) as work:
        ticket = edge.prepare(work, repo_id=REPO, rev=commit, path="README.md", record=False)
    assert ticket.passage_id is None
    assert rows(works, EdgePassage) == []


def test_many_passages_do_not_make_a_poll_slow(works, staff, track):
    ticket = pass_on(works, staff)
    with works.begin(SYSTEM, quiet=True) as work:
        one = work.session.get_one(EdgePassage, ticket.passage_id)
        values = {c.name: getattr(one, c.name) for c in EdgePassage.__table__.columns}
        for at in range(0, 100_000, 10_000):
            many = [{**values, "id": f"psg_{n:026d}"} for n in range(at, at + 10_000)]
            work.session.execute(insert(EdgePassage), many)
    watch = EdgeWatch(works)
    before, took = watch.cuts(), []
    works.clock.move(edge.OVERLAP + timedelta(seconds=1))
    for _ in range(3):
        began = time.monotonic()
        assert watch.cuts() == before
        took.append(time.monotonic() - began)
    assert min(took) < 0.2  # the watcher gives up after a second, and then cuts everybody
    stop_by_token(works, staff)
    assert watch.cuts() == before + 1
    assert all(row.cut_at is not None for row in rows(works, EdgePassage))
