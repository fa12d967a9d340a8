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
from stagerelease.releases.differing import differences
from stagerelease.releases.gates import KINDS
from stagerelease.releases.ladder import SHIPPED, shipped_source
from stagerelease.releases.plans import (
    Quorum,
    duration_text,
    lint_plan,
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


DWELLS = {
    "default": [0, 14, 30],
    "demo": [0, 0, 0],
    "strict": [7, 30, 90],
    "gpt2-2019": [0, 0],
}
DOUBTS = {"demo": ["warning"] * 2, "gpt2-2019": ["warning"]}


@pytest.mark.parametrize("slug", SHIPPED)
def test_shipped_plans_read_and_follow_the_schema(slug):
    plan = parse_plan(shipped_source(slug))
    VALIDATOR.validate(yaml.safe_load(shipped_source(slug)))
    assert plan.slug == slug
    rungs = [
        ("internal", "staff", False, None),
        ("partner", "organisations", True, "model-sharing"),
        ("researcher", "people", True, "researcher-terms"),
        ("public", "everyone", True, None),
    ]
    if slug == "gpt2-2019":  # nobody asked as a single person in 2019
        del rungs[2]
    assert [(s.name, s.audience, s.listed, s.agreement) for s in plan.ladder] == rungs
    assert {s.quorum.roles for s in plan.ladder[1:]} == {("reviewer",)}
    assert all(s.quorum.count >= 2 for s in plan.ladder[1:])
    dwell = [s.minimum_dwell.days for s in plan.ladder[1:]]
    assert dwell == DWELLS[slug]
    assert [f.severity for f in lint_plan(shipped_source(slug))] == DOUBTS.get(slug, [])


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


EVIDENCE = {"kind": "evidence", "type": "detectability", "metric": "accuracy", "at_least": 0.9}
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
    "prompts kept where nobody asks": (
        {"stages__1__permissions": ["download"], "stages__1__prompt_logging": True},
        "stages.1.prompt_logging",
    ),
    "prompts kept perhaps": ({"stages__1__prompt_logging": "yes"}, "stages.1.prompt_logging"),
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
    "evidence without a limit": (
        {"stages__1__gates__0": {"kind": "evidence", "type": "benefit", "metric": "m"}},
        "stages.1.gates.0",
    ),
    "evidence of no type": (
        {"stages__1__gates__0": EVIDENCE | {"type": "hope"}},
        "stages.1.gates.0.type",
    ),
    "a limit that is no number": (
        {"stages__1__gates__0": EVIDENCE | {"at_least": "high"}},
        "stages.1.gates.0.at_least",
    ),
    "a limit that is true": (
        {"stages__1__gates__0": EVIDENCE | {"at_least": True}},
        "stages.1.gates.0.at_least",
    ),
    "conditions as a list": (
        {"stages__1__gates__0": EVIDENCE | {"conditions": ["sampler"]}},
        "stages.1.gates.0.conditions",
    ),
    "a condition that is a list": (
        {"stages__1__gates__0": EVIDENCE | {"conditions": {"sampler": ["top-k"]}}},
        "stages.1.gates.0.conditions.sampler",
    ),
    "an age in months": (
        {"stages__1__gates__0": EVIDENCE | {"max_age": "P6M"}},
        "stages.1.gates.0.max_age",
    ),
    "no artifact of that kind": (
        {"stages__1__gates__0": EVIDENCE | {"artifacts": ["vibes"]}},
        "stages.1.gates.0.artifacts",
    ),
    "keys that are not names": (
        {"stages__1__gates__0": {"kind": "signed", "keys": [1]}},
        "stages.1.gates.0.keys",
    ),
    "dwell on the first": ({"stages__0__minimum_dwell": "P1D"}, "stages.0.minimum_dwell"),
    "control characters": ({"title": "a\x07b"}, "title"),
}
BEYOND_THE_SCHEMA = {  # what a JSON Schema cannot say of a plan; the reader does
    *("duplicate stage", "narrows", "everyone twice", "short lifetime", "centuries"),
    *("no such day", "gate key twice", "control characters", "evidence without a limit"),
    "prompts kept where nobody asks",
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


EVERY_GATE = [
    EVIDENCE
    | {
        "key": "detectable",
        "unit": "fraction",
        "conditions": {"sampler": "top-k 40", "text_length": 500},
        "max_age": "P180D",
        "count": 2,
        "distinct_organisations": 2,
        "judged_by": "interval",
        "artifacts": ["weights"],
    },
    {"kind": "freshness", "type": "bias_probe", "max_age": "P90D"},
    {"kind": "served", "at_least": 3, "artifacts": ["weights", "detector"]},
    {"kind": "signed", "keys": ["release-2026"]},
    {"kind": "card_locked"},
    {"kind": "coordination", "window": "P30D", "at_least": 1},
    {"kind": "manual", "question": "Is it fit"},
]


def test_every_kind_of_gate_is_read_and_written_back():
    assert {g["kind"] for g in EVERY_GATE} == {k for k, gate in KINDS.items() if gate.listed}
    document = make_document(stages__1__gates=EVERY_GATE)
    VALIDATOR.validate(document)
    plan = read_plan(document)
    first = plan.stage("partner").gates[0]
    assert (first.key, first.artifacts) == ("detectable", ("weights",))
    assert first.options["conditions"] == {"sampler": "top-k 40", "text_length": 500}
    again = plan_document(plan)
    VALIDATOR.validate(again)
    assert read_plan(again) == plan
    json.dumps(again)


def test_lint_names_the_line():
    source = yaml.safe_dump(make_document(stages__1__quorum__count=0), sort_keys=False)
    (found,) = lint_plan(source)
    lines = source.splitlines()
    assert (found.severity, found.field) == ("error", "stages.1.quorum.count")
    assert lines[found.line - 1].strip() == "count: 0"
    dropped = make_document()
    del dropped["stages"][1]["agreement"]
    source = yaml.safe_dump(dropped, sort_keys=False)
    (found,) = [f for f in lint_plan(source) if f.field == "stages.1.agreement"]
    assert source.splitlines()[found.line - 1].strip() == "- name: partner"  # where it would stand
    with pytest.raises(Invalid) as caught:
        lint_plan("plan: ours\ntitle: [\n")
    assert "line 3" in caught.value.sentence


def test_lint_doubts_what_a_plan_may_say():
    document = make_document(stages__1__quorum__count=1)
    said = {f.field: f.severity for f in lint_plan(yaml.safe_dump(document))}
    assert said == {"stages.1.quorum": "warning", "stages.2.name": "warning"}


DIFFERENCES = {
    "dwell down": ({"stages__1__minimum_dwell": "P7D"}, "loosens"),
    "dwell up": ({"stages__1__minimum_dwell": "P15D"}, "tightens"),
    "quorum up": ({"stages__1__quorum__count": 3}, "tightens"),
    "quorum down": ({"stages__1__quorum__count": 1}, "loosens"),
    "gate gone": ({"stages__1__gates__0": None}, "loosens"),
    "gate more": ({"stages__1__gates__1": {"kind": "card_locked"}}, "tightens"),
    "gate asks else": ({"stages__1__gates__0__question": "Really?"}, "unclear"),
    "gate of fewer kinds": ({"stages__1__gates__0__artifacts": ["code"]}, "loosens"),
    "date later": ({"stages__1__not_before": "2027-05-05"}, "tightens"),
    "date sooner": ({"stages__1__not_before": "2025-05-05"}, "loosens"),
    "date gone": ({"stages__1__not_before": None}, "loosens"),
    "less allowed": ({"stages__1__permissions": ["infer"]}, "tightens"),
    "title": ({"title": "Theirs"}, "neutral"),
    "a longer life": ({"request_lifetime": "P60D"}, "loosens"),
    "audience wider": ({"stages__1__audience": "people"}, "loosens"),
    "agreement else": ({"stages__1__agreement": "other"}, "unclear"),
    "hidden": ({"stages__1__listed": False}, "tightens"),
    "a stage more": ({"stages__2__name": "all"}, None),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_said_and_weighed(case):
    changes, effect = DIFFERENCES[case]
    old, new = read_plan(make_document()), read_plan(make_document(**changes))
    found = differences(old, new)
    if effect is None:
        assert {c.effect for c in found} == {"loosens", "tightens"}  # one stage goes, one comes
        return
    (change,) = found
    assert change.effect == effect
    (back,) = differences(new, old)
    assert (back.before, back.after) == (change.after, change.before)
    opposite = {"loosens": "tightens", "tightens": "loosens"}
    assert back.effect == opposite.get(effect, effect)
    assert change.sentence.endswith(".")


def test_everyone_instead_of_people_under_an_agreement_loosens():
    top = {"stages__2": None}
    people = {"stages__1__audience": "people"}
    everyone = {"stages__1__audience": "everyone", "stages__1__agreement": None}
    old, new = (read_plan(make_document(**top, **one)) for one in (people, everyone))
    assert {(c.where, c.effect) for c in differences(old, new)} == {
        ("Stage partner, audience", "loosens"),
        ("Stage partner, agreement", "loosens"),
    }
    assert {c.effect for c in differences(new, old)} == {"tightens"}


def stage_with(**change):
    return {"name": "new", "audience": "organisations", "agreement": "model-sharing"} | change


@pytest.mark.parametrize(
    ("at", "stage", "effect"),
    [
        (2, {}, "tightens"),  # one step more among those who were let in already
        (2, {"listed": False}, "tightens"),
        (2, {"agreement": "other"}, "loosens"),
        (2, {"audience": "people"}, "loosens"),
        (1, {}, "loosens"),  # above staff only
    ],
)
def test_a_stage_that_comes_in_loosens_unless_it_is_one_step_more(at, stage, effect):
    document = make_document()
    wanted = {key: value for key, value in stage_with(**stage).items() if value is not None}
    document["stages"].insert(at, wanted)
    old, new = read_plan(make_document()), read_plan(document)
    (come,) = differences(old, new)
    assert (come.where, come.effect) == ("Stage new", effect)
    (gone,) = differences(new, old)
    assert gone.effect == "loosens"  # a step less, whatever it was


def test_a_public_stage_with_one_approval_and_no_gate_is_no_tightening():
    document = make_document()
    del document["stages"][2]
    old = read_plan(document)
    new = read_plan(make_document(stages__2__quorum={"count": 1, "roles": ["reviewer"]}))
    (come,) = differences(old, new)
    assert (come.where, come.effect) == ("Stage public", "loosens")
    assert [c.effect for c in differences(new, old)] == ["tightens"]  # nobody gets there


FIGURE = {
    "kind": "evidence",
    "key": "told",
    "type": "detectability",
    "metric": "accuracy",
    "at_least": 90,
}
VERDICT = {"kind": "evidence", "key": "told", "type": "benefit", "metric": "finding"}
GATES = {
    "a lower threshold": (FIGURE, {"at_least": 1}, "loosens"),
    "lower and of code only": (FIGURE, {"at_least": 1, "artifacts": ["code"]}, "loosens"),
    "higher, of code only": (FIGURE, {"at_least": 95, "artifacts": ["code"]}, "loosens"),
    "a higher threshold": (FIGURE, {"at_least": 95}, "tightens"),
    "at most instead": (FIGURE, {"at_least": None, "at_most": 90}, "unclear"),
    "another metric": (FIGURE, {"metric": "sensitivity", "at_least": 95}, "unclear"),
    "another unit": (FIGURE, {"unit": "fraction", "at_least": 0.95}, "unclear"),
    "more pieces": (FIGURE, {"count": 2}, "tightens"),
    "of several": (FIGURE, {"distinct_organisations": 2}, "tightens"),
    "other conditions": (FIGURE, {"conditions": {"sampler": "greedy"}}, "unclear"),
    "younger": (FIGURE, {"max_age": "P9D"}, "unclear"),  # what contradicts may be older
    "by its interval": (FIGURE, {"judged_by": "interval"}, "unclear"),
    "another kind": (FIGURE, {"kind": "manual", "question": "Told"}, "unclear"),
    "a worse verdict": (
        VERDICT | {"verdict": "clear_benefit"},
        {"verdict": "some_benefit"},
        "loosens",
    ),
    "fewer served": ({"kind": "served", "key": "told", "at_least": 3}, {"at_least": 1}, "loosens"),
    "any key": ({"kind": "signed", "key": "told", "keys": ["a"]}, {"keys": None}, "loosens"),
    "one key more": (
        {"kind": "signed", "key": "told", "keys": ["a"]},
        {"keys": ["a", "b"]},
        "loosens",
    ),
    "one of two keys": (
        {"kind": "signed", "key": "told", "keys": ["a", "b"]},
        {"keys": ["b"]},
        "tightens",
    ),
    "a key else": ({"kind": "signed", "key": "told", "keys": ["a"]}, {"keys": ["b"]}, "unclear"),
    "a shorter window": (
        {"kind": "coordination", "key": "told", "window": "P30D"},
        {"window": "P2W"},
        "loosens",
    ),
    "an older look": (
        {"kind": "freshness", "key": "told", "type": "bias_probe", "max_age": "P9D"},
        {"max_age": "P10D"},
        "loosens",
    ),
    "of more kinds": (
        {"kind": "card_locked", "key": "told", "artifacts": ["code"]},
        {"artifacts": ["code", "weights"]},
        "tightens",
    ),
    "of other kinds": (
        {"kind": "card_locked", "key": "told", "artifacts": ["code"]},
        {"artifacts": ["weights"]},
        "unclear",
    ),
}


@pytest.mark.parametrize("case", GATES)
def test_a_gate_that_changes_is_weighed_by_what_it_asks(case):
    gate, change, effect = GATES[case]
    after = {k: v for k, v in (gate | change).items() if v is not None}
    if change.get("kind"):
        after = {"key": "told"} | change
    old, new = (read_plan(make_document(stages__1__gates=[one])) for one in (gate, after))
    (found,) = differences(old, new)
    assert (found.where, found.effect) == ("Stage partner, gate told", effect)


def test_what_lets_in_older_evidence_or_judges_it_less_strictly_loosens():
    for strict in ({"max_age": "P9D"}, {"judged_by": "interval"}):
        old, new = (
            read_plan(make_document(stages__1__gates=[one])) for one in (FIGURE | strict, FIGURE)
        )
        assert [c.effect for c in differences(old, new)] == ["loosens"]


@given(st.data())
def test_no_plan_differs_from_itself(data):
    plan = read_plan(data.draw(documents()))
    assert differences(plan, plan) == ()


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


def test_prompts_are_kept_only_by_plans_that_say_so():
    plan = read_plan(make_document(stages__1__prompt_logging=True))
    assert [stage.prompt_logging for stage in plan.ladder] == [False, True, False]
    assert read_plan(plan_document(plan)) == plan
    assert "prompt_logging" not in json.dumps(plan_document(read_plan(make_document())))
    VALIDATOR.validate(plan_document(plan))
    public = "stages:\n  - {name: internal, audience: staff}\n"
    public += "  - {name: public, audience: everyone, minimum_dwell: P1D, prompt_logging: true}\n"
    sentences = [f.sentence for f in lint_plan(f"plan: p\ntitle: P\n{public}")]
    assert any("nobody signs an agreement" in sentence for sentence in sentences)
