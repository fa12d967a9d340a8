"""Pages for people: server-rendered, whole without JavaScript, one transaction each.

A page calls the same services as the JSON face. It knows its visitor by a session and nothing
else, refuses what another site sends, and carries one strict policy.
"""

from stagerelease.http.pages import (
    agreements,
    asking,
    card,
    demo,
    design,
    desk,
    docs,
    home,
    log,
    me,
    my_evidence,
    nav,
    playground,
    problems,
    proving,
    report,
    requests,
    security,
    signing_in,
    staff,
    status,
)

ROUTERS = (
    home.router,
    card.router,
    asking.router,
    requests.router,
    signing_in.router,
    signing_in.scripted,
    security.router,
    security.scripted,
    proving.router,
    proving.scripted,
    me.router,
    my_evidence.router,
    agreements.router,
    staff.router,
    *desk.ROUTERS,
    report.router,
    demo.router,
    design.router,
    docs.router,
    log.router,
    problems.router,
    status.router,
    playground.router,
    playground.scripted,
)

nav.know(ROUTERS)
LAST = card.names
"""The router to be tried after all others of every face."""

__all__ = ["LAST", "ROUTERS"]
