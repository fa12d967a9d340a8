"""A download in any parts is one download: complete exactly when its parts cover the file."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_partners import REPO, database_url, partnered, world
from sqlalchemy import delete

from stagerelease.downloads import service
from stagerelease.downloads.tables import Download, Transfer
from stagerelease.kernel.actor import OPERATOR
from stagerelease.partners.tables import Grant

__all__ = ["database_url", "partnered", "world"]  # fixtures
SIZE = 9  # of the file in that world
part = st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE), st.integers(0, 14))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(part, min_size=1, max_size=6))
def test_parts_in_any_order_make_one_download_complete_exactly_when_they_cover_it(world, parts):
    """Each retry within the hour is permitted anew, under the same grant: no new download."""
    with world.works.begin(OPERATOR, read_only=True) as work:
        grants = [g.id for g in work.session.query(Grant)]
    if not grants:
        grants = [world.granted().id]
    with world.works.begin(OPERATOR) as work:
        work.session.execute(delete(Transfer))
        work.session.execute(delete(Download))
    reached: set[int] = set()
    names, began = set(), world.works.clock.now()
    for first, sent, minutes in parts:
        world.works.clock.move(timedelta(minutes=minutes) / len(parts))
        with world.begin("ann", quiet=True) as work:
            ticket = service.prepare(
                work, repo_id=REPO, rev="main", path="model.safetensors", record=True
            )
        assert ticket.decision.grant_id == grants[0]
        names.add(ticket.download_id)
        sent = min(sent, SIZE - first)
        service.finish(
            world.works, ticket.download_id, first=first, sent=sent, outcome="client_left"
        )
        reached |= set(range(first, first + sent))
        with world.works.begin(OPERATOR, read_only=True) as work:
            download = work.session.get_one(Download, ticket.download_id)
            assert (download.completed_at is not None) == (reached == set(range(SIZE)))
    assert world.works.clock.now() - began < service.SAME_DOWNLOAD
    assert len(names) == 1
