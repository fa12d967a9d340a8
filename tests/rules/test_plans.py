"""Plans: what is read, what is refused, and that the schema beside them says the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.kernel.errors import Invalid
from stagerelease.releases.ladder import SHIPPED, shipped_source
from stagerelease.releases.plans import (
    Quorum,
    duration_text,
    parse_duration,
    parse_plan,
    plan_document,
    read_plan,
)

SCHEMA = json.loads(
    files("stagerelease.releases").joinpath("shipped/plan.schema.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def make_document(**changes):
    """A plan as plain values that reads; ``changes`` are dotted paths, None deletes."""
    document = {
        "plan": "ours",
        "title": "Ours",
        "stages": [
            {"name": "internal", "audience": "staff"},
            {
                "name": "partner",
                "audience": "organisations",
                "agreement": "model-sharing",
                "minimum_dwell": "P14D",
                "quorum": {"count": 2, "roles": ["reviewer"]},
                "not_before": "2026-05-05",
                "gates": [{"kind": "manual", "key": "card-read", "question": "Is the card read?"}],
            },
            {"name": "public", "audience": "everyone"},
        ],
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = document
        for part in parents:
            node = node[int(part)] if part.isdigit() else node[part]
        key = int(last) if isinstance(node, list) else last
        if value is None:
            del node[key]
        elif isinstance(node, list) and key == len(node):
            node.append(value)
        else:
            node[key] = value
    return document


@pytest.mark.parametrize("slug", SHIPPED)
def test_shipped_plans_read_and_follow_the_schema(slug):
    plan = parse_plan(shipped_source(slug))
    VALIDATOR.validate(yaml.safe_load(shipped_source(slug)))
    assert plan.slug == slug
    assert [(s.name, s.audience, s.listed, s.agreement) for s in plan.ladder] == [
        ("internal", "staff", False, None),
        ("partner", "organisations", True, "model-sharing"),
        ("researcher", "people", True, "researcher-terms"),
        ("public", "everyone", True, None),
    ]
    assert {s.quorum for s in plan.ladder[1:]} == {Quorum(2, ("reviewer",))}
    dwell = [s.minimum_dwell.days for s in plan.ladder[1:]]
    assert dwell == ([0, 14, 30] if slug == "default" else [0, 0, 0])


def test_a_plan_says_its_ladder():
    plan = read_plan(make_document())
    partner = plan.stage("partner")
    assert partner.minimum_dwell == timedelta(days=14)
    assert partner.not_before == datetime(2026, 5, 5, tzinfo=UTC)
    assert partner.gates[0].key == "card-read"
    assert plan.stage("public").quorum == Quorum(2, ("reviewer",))  # the default
    assert [plan.rank(s.name) for s in plan.ladder] == [0, 1, 2]
    above = plan.next("internal")
    assert above is not None
    assert above.name == "partner"
    assert plan.next("public") is None
    assert plan.next("withdrawn") is None
    with pytest.raises(KeyError):
        plan.stage("withdrawn")


WRONG = {
    "no slug": ({"plan": None}, "plan"),
    "bad slug": ({"plan": "Ours!"}, "plan"),
    "no title": ({"title": None}, "title"),
    "number for title": ({"title": 3}, "title"),
    "unknown key": ({"stagse": []}, "stagse"),
    "one stage": ({"stages__2": None, "stages__1": None}, "stages"),
    "stages not a list": ({"stages": "internal"}, "stages"),
    "stage not a mapping": ({"stages__1": "partner"}, "stages.1"),
    "unknown stage key": ({"stages__1__dwell": "P1D"}, "stages.1.dwell"),
    "duplicate stage": ({"stages__2__name": "partner"}, "stages.2.name"),
    "withdrawn as stage": ({"stages__2__name": "withdrawn"}, "stages.2.name"),
    "unknown audience": ({"stages__1__audience": "friends"}, "stages.1.audience"),
    "no audience": ({"stages__1__audience": None}, "stages.1.audience"),
    "does not start with staff": ({"stages__0__audience": "people"}, "stages.0.audience"),
    "staff above the first": ({"stages__2__audience": "staff"}, "stages.2.audience"),
    "narrows": (
        {"stages__1__audience": "everyone", "stages__1__agreement": None}
        | {"stages__2__audience": "people", "stages__2__agreement": "terms"},
        "stages.2.audience",
    ),
    "everyone twice": (
        {"stages__1__audience": "everyone", "stages__1__agreement": None},
        "stages.2.audience",
    ),
    "no agreement": ({"stages__1__agreement": None}, "stages.1.agreement"),
    "agreement of everyone": ({"stages__2__agreement": "terms"}, "stages.2.agreement"),
    "listed not a flag": ({"stages__1__listed": "yes"}, "stages.1.listed"),
    "unknown permission": ({"stages__1__permissions": ["copy"]}, "stages.1.permissions"),
    "no permission": ({"stages__1__permissions": []}, "stages.1.permissions"),
    "months": ({"stages__1__minimum_dwell": "P1M"}, "stages.1.minimum_dwell"),
    "years": ({"stages__1__minimum_dwell": "P1Y"}, "stages.1.minimum_dwell"),
    "empty duration": ({"stages__1__minimum_dwell": "P"}, "stages.1.minimum_dwell"),
    "empty time": ({"stages__1__minimum_dwell": "P1DT"}, "stages.1.minimum_dwell"),
    "duration as number": ({"stages__1__minimum_dwell": 14}, "stages.1.minimum_dwell"),
    "negative duration": ({"stages__1__minimum_dwell": "-P14D"}, "stages.1.minimum_dwell"),
    "centuries": ({"stages__1__minimum_dwell": "P99999D"}, "stages.1.minimum_dwell"),
    "short lifetime": ({"request_lifetime": "PT1M"}, "request_lifetime"),
    "quorum of none": ({"stages__1__quorum__count": 0}, "stages.1.quorum.count"),
    "quorum of true": ({"stages__1__quorum__count": True}, "stages.1.quorum.count"),
    "quorum of text": ({"stages__1__quorum__count": "2"}, "stages.1.quorum.count"),
    "quorum without count": ({"stages__1__quorum__count": None}, "stages.1.quorum.count"),
    "quorum of owners": ({"stages__1__quorum__roles": ["owner"]}, "stages.1.quorum.roles"),
    "quorum of nobody": ({"stages__1__quorum__roles": []}, "stages.1.quorum.roles"),
    "role twice": (
        {"stages__1__quorum__roles": ["reviewer", "reviewer"]},
        "stages.1.quorum.roles",
    ),
    "unknown quorum key": ({"stages__1__quorum__any": 1}, "stages.1.quorum.any"),
    "no such day": ({"stages__1__not_before": "2026-02-30"}, "stages.1.not_before"),
    "instant without zone": (
        {"stages__1__not_before": "2026-02-03T10:00:00"},
        "stages.1.not_before",
    ),
    "unknown gate kind": ({"stages__1__gates__0__kind": "luck"}, "stages.1.gates.0.kind"),
    "implied gate listed": (
        {"stages__1__gates__0": {"kind": "quorum"}},
        "stages.1.gates.0.kind",
    ),
    "gate without question": ({"stages__1__gates__0__question": None}, "stages.1.gates.0.question"),
    "unknown gate option": ({"stages__1__gates__0__who": "me"}, "stages.1.gates.0.who"),
    "gate key taken": ({"stages__1__gates__0__key": "quorum"}, "stages.1.gates.0.key"),
    "gate key twice": (
        {"stages__1__gates__1": {"kind": "manual", "key": "card-read", "question": "?"}},
        "stages.1.gates.1.key",
    ),
    "dwell on the first": ({"stages__0__minimum_dwell": "P1D"}, "stages.0.minimum_dwell"),
    "control characters": ({"title": "a\x07b"}, "title"),
}
BEYOND_THE_SCHEMA = {  # what a JSON Schema cannot say of a plan; the reader does
    *("duplicate stage", "narrows", "everyone twice", "short lifetime", "centuries"),
    *("no such day", "gate key twice", "control characters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_mistake_is_named_by_its_field(case):
    """The document that reads, with one thing changed."""
    changes, field = WRONG[case]
    with pytest.raises(Invalid) as caught:
        read_plan(make_document(**changes))
    assert field in {f.field for f in caught.value.fields}
    assert caught.value.reason == "plan.invalid"
    assert VALIDATOR.is_valid(make_document(**changes)) == (case in BEYOND_THE_SCHEMA)


def test_the_schema_takes_what_the_reader_takes():
    VALIDATOR.validate(make_document())
    VALIDATOR.validate(plan_document(read_plan(make_document())))


def test_all_mistakes_are_named_at_once():
    with pytest.raises(Invalid) as caught:
        read_plan(make_document(plan="A B", stages__1__quorum__count=0, stages__1__colour="red"))
    assert {f.field for f in caught.value.fields} == {
        "plan",
        "stages.1.quorum.count",
        "stages.1.colour",
    }


@pytest.mark.parametrize(
    "source",
    [
        "plan: a\nplan: b\n",
        "plan: &a x\ntitle: *a\n",
        "plan: !!python/object/apply:os.system [ls]\n",
        "<<: {plan: a}\n",
        "[" * 30_000,
        "plan: \x00",
        "? [a, b]\n: c\n",
        "plan: " + "9" * 5000,
        "a: b: c",
        "- just\n- a list\n",
        "",
        "x" * 70_000,
        'plan: "\\ud800"',
    ],
    ids=lambda s: s[:12],
)
def test_hostile_yaml_is_refused_in_words(source):
    with pytest.raises(Invalid) as caught:
        parse_plan(source)
    caught.value.sentence.encode()  # whatever was sent, the refusal can be sent back
    for field in caught.value.fields:
        (field.field + field.sentence).encode()


def test_a_date_stays_the_text_that_was_written():
    source = yaml.safe_dump(make_document()).replace("'2026-05-05'", "2026-05-05")
    assert parse_plan(source) == read_plan(make_document())


texts = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=20
).filter(lambda t: t.strip())
spans = st.integers(0, 36_500 * 86_400).map(lambda s: timedelta(seconds=s))
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True).filter(
    lambda n: n != "withdrawn"
)


@st.composite
def documents(draw):
    """Plans that read, of any shape."""
    middle = st.lists(st.sampled_from(["organisations", "people"]), max_size=4)
    ladder = ["staff", *sorted(draw(middle))]
    ladder += ["everyone"] if len(ladder) == 1 or draw(st.booleans()) else []
    stages = []
    taken = draw(st.lists(names, min_size=len(ladder), max_size=len(ladder), unique=True))
    for name, audience in zip(taken, ladder, strict=True):
        stage = {"name": name, "audience": audience}
        if draw(st.booleans()):
            stage["listed"] = draw(st.booleans())
        if audience in ("organisations", "people"):
            stage["agreement"] = draw(names)
        if audience != "staff":
            stage["minimum_dwell"] = duration_text(draw(spans))
            stage["quorum"] = {"count": draw(st.integers(1, 20))}
            stage["gates"] = [
                {"kind": "manual", "key": f"g{i}", "question": draw(texts)}
                for i in range(draw(st.integers(0, 3)))
            ]
        stages.append(stage)
    return {"plan": draw(names), "title": draw(texts), "stages": stages}


@given(documents())
def test_a_plan_written_out_reads_back_the_same(document):
    plan = read_plan(document)
    written = plan_document(plan)
    assert read_plan(written) == plan
    assert parse_plan(json.dumps(written)) == plan  # JSON is YAML
    VALIDATOR.validate(written)


@given(spans)
def test_durations_read_back_the_same(span):
    assert parse_duration(duration_text(span)) == span


@given(st.one_of(st.booleans(), st.integers(), st.text(), st.lists(st.integers())))
def test_any_other_value_is_refused_in_words_or_means_something(value):
    for path in ("plan", "title", "stages", "stages__1__quorum", "stages__1__gates"):
        document = make_document(**{path: value})
        try:
            found = read_plan(document)
        except Invalid as refused:
            named = {f.field.rpartition(".")[0] or f.field for f in refused.fields}
        else:
            named = {path}
            VALIDATOR.validate(plan_document(found))
        assert named
