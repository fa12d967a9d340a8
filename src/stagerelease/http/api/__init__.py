"""The JSON face under ``/api/v1``."""

from stagerelease.http.api import (
    access,
    catalog,
    edge,
    holds,
    ledger,
    partners,
    people,
    plans,
    releases,
    service,
)

ROUTERS = (
    service.router,
    people.router,
    catalog.router,
    plans.router,
    releases.router,
    holds.router,
    partners.router,
    access.router,
    ledger.router,
    edge.router,
)
