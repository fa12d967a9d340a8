"""Pages for people: server-rendered, whole without JavaScript, one transaction each.

A page calls the same services as the JSON face. It knows its visitor by a session and nothing
else, refuses what another site sends, and carries one strict policy.
"""

from stagerelease.http.pages import (
    agreements,
    asking,
    demo,
    design,
    home,
    me,
    nav,
    report,
    requests,
    signing_in,
    staff,
)

ROUTERS = (
    home.router,
    asking.router,
    requests.router,
    signing_in.router,
    me.router,
    agreements.router,
    staff.router,
    report.router,
    demo.router,
    design.router,
)

nav.know(ROUTERS)
LAST = home.names
"""The router to be tried after all others of every face."""

__all__ = ["LAST", "ROUTERS"]
