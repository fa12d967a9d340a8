"""The API holds its own description: no 5xx and no answer outside the schema, for any input."""

from __future__ import annotations

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "5"))
SKIPPED = {"/api/v1/tracks/{track_id}/withdraw"}
load_all_checks()


@pytest.mark.parametrize("who", ["owner", "partner", None])
def test_no_input_breaks_the_api(world, who):
    with world.client() as client:
        raw = client.get("/api/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(raw)
    headers = {"Authorization": f"Bearer {world.tokens[who]}"} if who else {}
    broken: list[str] = []
    tried = 0
    with httpx.Client(base_url=world.base_url, timeout=20) as client:
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @schemathesis_given(operation)
            def one(case):
                nonlocal tried
                tried += 1
                response = case.call(base_url=world.base_url, headers=headers)
                if response.status_code >= 500:
                    broken.append(f"{case.method} {case.formatted_path}: {response.status_code}")
                    return
                case.validate_response(
                    response,
                    checks=[
                        response_schema_conformance,
                        content_type_conformance,
                        status_code_conformance,
                    ],
                )

            one()
    assert broken == []
    assert tried >= 70 * min(EXAMPLES, 3)


def schemathesis_given(operation):
    """Return a decorator that feeds a test with cases of ``operation``."""
    from hypothesis import given

    return given(case=operation.as_strategy())
