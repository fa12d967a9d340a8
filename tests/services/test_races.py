"""Eight people at once: only outcomes that some serial order could have.

Every round starts eight threads on a barrier. Losers are told so (Conflict, Blocked or Stale);
nobody gets an unexplained error; the log has exactly as many entries as there were winners.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from make_release import (
    PLAN,
    Staff,
    database_url,
    leaves,
    log_size,
    make_track,
    staff,
    staffed,
    stage_of,
)

from stagerelease.db.work import Works
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Blocked, Conflict, DomainError, Stale, Unauthenticated
from stagerelease.releases import service
from stagerelease.releases.facts import PromotionRow

__all__ = ["database_url", "staff", "staffed"]  # fixtures
pytestmark = pytest.mark.timeout(1800)
THREADS = 8
LOSSES = (Conflict, Blocked, Stale)
REVIEWERS = tuple(f"reviewer-{i}" for i in range(THREADS))
Act = Callable[[], object]
WAIVED = PLAN.replace("plan: ours", "plan: waived").replace(
    "agreement: model-sharing}",
    "agreement: model-sharing, gates: [{kind: manual, key: read, question: Read}]}",
)
HUNDRED = pytest.param(100, id="100 rounds", marks=pytest.mark.e2e)
ROUNDS = [pytest.param(10, id="10 rounds"), HUNDRED]
FEW = [
    pytest.param(4, id="4 rounds"),
    pytest.param(25, id="25 rounds", marks=pytest.mark.e2e),
]


def at_once(acts: list[Act]) -> list[object]:
    """Run every act in its own thread, all released together; return results and refusals."""
    barrier = threading.Barrier(len(acts))
    answers: list[object] = [None] * len(acts)

    def run(index: int, act: Act) -> None:
        barrier.wait()
        try:
            answers[index] = act()
        except Exception as error:  # noqa: BLE001 (whatever it is, the test looks at it)
            answers[index] = error

    threads = [
        threading.Thread(target=run, args=(index, act), daemon=True)
        for index, act in enumerate(acts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return answers


def winners(answers: list[object]) -> list[object]:
    """Return what was not refused; anything but a proper refusal is an error of ours."""
    for answer in answers:
        if isinstance(answer, Exception):
            assert isinstance(answer, LOSSES), repr(answer)
    return [answer for answer in answers if not isinstance(answer, Exception)]


@pytest.fixture
def reviewers(works: Works, staff: Staff) -> Staff:
    """Eight more reviewers."""
    with works.begin(OPERATOR) as work:
        for handle in REVIEWERS:
            identity.create_person(work, handle=handle, display_name=handle)
            identity.assign_role(work, person=handle, role="reviewer")
            _, staff.tokens[handle] = identity.create_token(work, person=handle, name="test")
    return staff


@pytest.fixture
def tracks(works: Works) -> Iterator[Callable[[], str]]:
    """Give a fresh track at each call."""
    numbers = iter(range(10_000))

    def fresh() -> str:
        number = next(numbers)
        return make_track(works, repo_id=f"race/{number}", salt=f"{number:064x}"[-1]).id

    return fresh


def opened(staff: Staff, track_id: str) -> PromotionRow:
    with staff.begin("mia") as work:
        return service.open_promotion(work, track_id=track_id, to="partner", rationale="Race.")


def approving(staff: Staff, who: str, request: PromotionRow) -> Act:
    actor = staff.actor(who)

    def act() -> object:
        with staff.works.begin(actor) as work:
            return service.approve(work, request.id, request_hash=request.request_hash)

    return act


def applying(staff: Staff, number: int, who: str = "mia") -> Act:
    actor = staff.actor(who)

    def act() -> object:
        with staff.works.begin(actor) as work:
            return service.apply(work, number)

    return act


def approved(staff: Staff, request: PromotionRow) -> PromotionRow:
    for who in ("rae", "rob"):
        approving(staff, who, request)()
    return request


@pytest.mark.parametrize("rounds", ROUNDS)
def test_one_request_applied_by_eight_has_one_winner(works, staff, tracks, rounds):
    for _ in range(rounds):
        track = tracks()
        request = approved(staff, opened(staff, track))
        before = log_size(works)
        won = winners(at_once([applying(staff, request.id)] * THREADS))
        assert len(won) == 1
        assert leaves(works, before) == ["promotion.applied", "track.promoted"]
        assert stage_of(works, track) == "partner"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_eight_requests_of_one_track_have_one_winner(works, staff, tracks, rounds):
    for _ in range(rounds):
        track = tracks()
        requests = [approved(staff, opened(staff, track)) for _ in range(THREADS)]
        before = log_size(works)
        won = winners(at_once([applying(staff, request.id) for request in requests]))
        assert len(won) == 1
        made = leaves(works, before)
        assert made.count("promotion.applied") == made.count("track.promoted") == 1
        assert made.count("promotion.superseded") == THREADS - 1


@pytest.mark.parametrize("rounds", ROUNDS)
def test_eight_reviewers_approve_at_once(works, reviewers, tracks, rounds):
    """Everybody's approval counts; the quorum is reached once."""
    for _ in range(rounds):
        request = opened(reviewers, tracks())
        before = log_size(works)
        won = winners(at_once([approving(reviewers, who, request) for who in REVIEWERS]))
        assert len(won) == THREADS
        made = leaves(works, before)
        assert made.count("review.approval") == THREADS
        assert made.count("promotion.in_review") == made.count("promotion.approved") == 1
        assert made.index("promotion.approved") == 3  # right after the second approval


@pytest.mark.parametrize("rounds", FEW)
def test_one_reviewer_eight_times_at_once_counts_once(works, staff, tracks, rounds):
    for _ in range(rounds):
        request = opened(staff, tracks())
        before = log_size(works)
        assert len(winners(at_once([approving(staff, "rae", request)] * THREADS))) == 1
        assert leaves(works, before) == ["promotion.in_review", "review.approval"]


@pytest.mark.parametrize("rounds", FEW)
def test_approving_at_the_quorum_against_applying(works, reviewers, tracks, rounds):
    """One approval is there. Seven more race with one who applies."""
    for _ in range(rounds):
        track = tracks()
        request = opened(reviewers, track)
        approving(reviewers, REVIEWERS[0], request)()
        before = log_size(works)
        acts = [approving(reviewers, who, request) for who in REVIEWERS[1:]]
        winners(at_once([*acts, applying(reviewers, request.id)]))
        made = leaves(works, before)
        if stage_of(works, track) == "partner":
            at = made.index("promotion.applied")
            assert made[:at].count("review.approval") >= 1
            assert "review.approval" not in made[at:]  # nobody approves what is over
        else:
            assert "promotion.applied" not in made


@pytest.mark.parametrize("what", ["role", "waiver"])
def test_what_another_ended_after_one_began_does_not_count(works, staff, clock, request, what):
    """A Work that applies began before the other, and takes its locks after it."""
    if request.config.getoption("--db") == "sqlite":
        pytest.skip("there one writer begins when the other has ended")
    track = make_track(works, repo_id="race/waived", plan=WAIVED)
    with staff.begin("sam") as work:
        ends = clock.now() + timedelta(days=9)
        waiver = service.propose_waiver(
            work, track_id=track.id, stage="partner", gate="read", reason="Lost.", ends_at=ends
        )
    with staff.begin("sue") as work:
        service.sign_waiver(work, waiver.id)
    asked = approved(staff, opened(staff, track.id))
    with pytest.raises(Blocked), staff.begin("mia") as applies:
        clock.move(timedelta(seconds=5))
        with staff.begin("operator" if what == "role" else "sue") as ends_it:
            if what == "role":
                identity.end_role(ends_it, person="rob", role="reviewer")
            else:
                service.end_waiver(ends_it, waiver.id, reason="Found.")
        service.apply(applies, asked.id)
    assert stage_of(works, track.id) == "internal"


@pytest.mark.parametrize("rounds", FEW)
def test_applying_against_a_hold(works, staff, tracks, rounds):
    """The log shows which came first, and nothing is applied after the hold."""
    for number in range(rounds):
        track = tracks()
        request = approved(staff, opened(staff, track))
        sam = staff.actor("sam")
        scope = [("track", track), ("family", "race"), ("everything", None)][number % 3]

        def hold(scope=scope, sam=sam) -> object:
            with works.begin(sam) as work:
                return service.lay_hold(work, scope=scope[0], scope_id=scope[1], reason="Incident.")

        before = log_size(works)
        answers = at_once([hold, *[applying(staff, request.id)] * (THREADS - 1)])
        made = leaves(works, before)
        assert not isinstance(answers[0], Exception)
        assert len(winners(answers[1:])) == made.count("promotion.applied") <= 1
        if "promotion.applied" in made:
            assert made.index("promotion.applied") < made.index("hold.laid")
        for who in ("sam", "sue"):
            with staff.begin(who) as work:
                service.lift_hold(work, answers[0].id, reason="Round over.")


@pytest.mark.parametrize("rounds", FEW)
def test_applying_against_the_end_of_an_approvers_role(works, reviewers, tracks, rounds):
    """An approval counts only if its giver's role ends after the decision, as logged."""
    for number in range(rounds):
        one, two = REVIEWERS[number % THREADS], REVIEWERS[(number + 1) % THREADS]
        track = tracks()
        request = opened(reviewers, track)
        for who in (one, two):
            approving(reviewers, who, request)()

        def end(one=one) -> object:
            with works.begin(OPERATOR) as work:
                return identity.end_role(work, person=one, role="reviewer")

        before = log_size(works)
        answers = at_once([end, *[applying(reviewers, request.id)] * (THREADS - 1)])
        made = leaves(works, before)
        assert answers[0] is None
        assert len(winners(answers[1:])) == made.count("promotion.applied") <= 1
        if "promotion.applied" in made:
            assert made.index("promotion.applied") < made.index("role.ended")
        with works.begin(OPERATOR) as work:
            identity.assign_role(work, person=one, role="reviewer")


@pytest.mark.parametrize("rounds", FEW)
def test_editing_against_approving(works, reviewers, tracks, rounds):
    """Who approves after the edit is told that it moved on."""
    for _ in range(rounds):
        request = opened(reviewers, tracks())
        mia = reviewers.actor("mia")

        def edit(mia=mia, request=request) -> object:
            with works.begin(mia) as work:
                return service.edit_promotion(work, request.id, rationale="Better.")

        before = log_size(works)
        acts = [approving(reviewers, who, request) for who in REVIEWERS[1:]]
        answers = at_once([edit, *acts])
        made = leaves(works, before)
        assert not isinstance(answers[0], DomainError)
        assert len(winners(answers[1:])) == made.count("review.approval")
        assert "review.approval" not in made[made.index("promotion.edited") :]
        refused = [a for a in answers if isinstance(a, Exception)]
        assert all(isinstance(a, Stale) for a in refused)


@pytest.mark.parametrize("rounds", FEW)
def test_applying_against_withdrawing(works, staff, tracks, rounds):
    """From partner to public, or off: never both ways at once, never back."""
    for _ in range(rounds):
        track = tracks()
        applying(staff, approved(staff, opened(staff, track)).id)()
        with staff.begin("mia") as work:
            request = service.open_promotion(work, track_id=track, to="public", rationale="Race.")
        sam = staff.actor("sam")

        def withdraw(sam=sam, track=track) -> object:
            with works.begin(sam) as work:
                return service.withdraw_track(work, track, "Harm.")

        before = log_size(works)
        answers = at_once([withdraw] * 4 + [applying(staff, request.id)] * 4)
        assert len(winners(answers)) == 1
        assert stage_of(works, track) == "withdrawn"
        assert leaves(works, before) == ["promotion.superseded", "track.withdrawn"]


@pytest.mark.parametrize("rounds", FEW)
def test_two_consents_at_once_lift_a_hold_once(works, staff, rounds):
    for _ in range(rounds):
        with staff.begin("sam") as work:
            hold = service.lay_hold(work, scope="everything", scope_id=None, reason="Incident.")

        def lift(who: str, number: int = hold.id) -> Act:
            actor = staff.actor(who)

            def act() -> object:
                with works.begin(actor) as work:
                    return service.lift_hold(work, number, reason="Over.")

            return act

        before = log_size(works)
        won = winners(at_once([lift(who) for who in ("sam", "sue", "ola")] * 2))
        assert len(won) == 2
        assert leaves(works, before) == ["hold.lift_consented"] * 2 + ["hold.lifted"]


@pytest.mark.parametrize("rounds", FEW)
def test_a_token_is_revoked_while_what_it_made_makes_more(works, staff, rounds):
    """Whoever holds a leaked token cannot keep others from ending it, nor anything it made."""

    def made(text: str) -> str:
        with works.begin() as work:
            work.actor = identity.authenticate(work, text)
            return identity.create_token(work, person="mia", name="more")[1]

    def make(text: str) -> Callable[[], str]:
        return lambda: made(text)

    for _ in range(rounds):
        with works.begin(OPERATOR) as work:
            row, leaked = identity.create_token(work, person="mia", name="leaked")
            root = row.id
        children = [made(leaked) for _ in range(THREADS - 1)]

        def revoke(root=root) -> str:
            with works.begin(OPERATOR) as work:
                identity.revoke_token(work, root)
            return ""

        answers = at_once([revoke, *map(make, children)])
        assert answers[0] == ""
        late = [text for text in answers[1:] if isinstance(text, str)]
        assert all(isinstance(a, str | Unauthenticated) for a in answers)
        for text in (leaked, *children, *late):
            with works.begin(read_only=True) as work, pytest.raises(Unauthenticated):
                identity.authenticate(work, text)
