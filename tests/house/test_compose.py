"""The deployment files keep their promises: hardening, secrets, names that exist.

There is no container engine here; tests/e2e/test_nginx.py runs the same nginx files natively.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stagerelease.cli.app import app
from stagerelease.http.api.edge import EDGE_HEADER
from stagerelease.http.delivery import DOWNLOAD_HEADER
from stagerelease.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NGINX = DEPLOY / "nginx"
DEFAULT = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
COMPOSE = yaml.safe_load(DEFAULT.sub(r"\1", (ROOT / "docker-compose.yml").read_text()))
SERVICES = COMPOSE["services"]
APP = ("migrate", "web", "worker", "inference")
TEMPLATE = (NGINX / "nginx.conf.template").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def test_it_is_a_compose_file():
    reason = "compose-spec, a reader of Compose files by their specification, is not installed"
    compose_spec = pytest.importorskip("compose_spec", reason=reason)
    plain = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    compose_spec.PyCompose.from_json(json.dumps(plain))
    plain["services"]["web"] = {**plain["services"]["web"], "nonsense": 1}
    with pytest.raises(ValueError, match="nonsense"):
        compose_spec.PyCompose.from_json(json.dumps(plain))


def test_the_services_are_the_ones_the_design_names():
    assert set(SERVICES) == {"db", "migrate", "web", "worker", "inference", "vllm", "nginx"}
    assert [n for n, service in SERVICES.items() if "profiles" in service] == ["vllm"]  # if asked


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    uid, _, gid = service["user"].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert service["pids_limit"] > 0
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))
    assert service.get("network_mode") is None


@pytest.mark.parametrize("name", SERVICES)
def test_every_lasting_service_is_watched_and_restarted(name):
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"  # no shell
    assert {"interval", "timeout", "retries"} <= set(check)


def test_only_the_edge_can_be_reached_and_only_by_tls():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert SERVICES["nginx"]["ports"] == ["443:8443"]
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert COMPOSE["networks"]["front"]["internal"] is True
    assert set(SERVICES["nginx"]["networks"]) == {"public", "front"}
    assert set(SERVICES["web"]["networks"]) == {"back", "front"}
    assert all(SERVICES[n]["networks"] == ["back"] for n in ("db", "migrate", "worker"))


def test_only_the_edge_is_believed_about_clients():
    edge = SERVICES["nginx"]["networks"]["front"]["ipv4_address"]
    web = SERVICES["web"]["networks"]["front"]["ipv4_address"]
    subnet = ipaddress.ip_network(COMPOSE["networks"]["front"]["ipam"]["config"][0]["subnet"])
    assert {ipaddress.ip_address(edge), ipaddress.ip_address(web)} < set(subnet.hosts())
    assert SERVICES["web"]["environment"]["STAGERELEASE_TRUSTED_PROXIES"] == edge
    assert SERVICES["nginx"]["environment"]["EDGE_UPSTREAM"] == f"{web}:8000"


@pytest.mark.parametrize("name", APP)
def test_the_environment_is_one_the_service_accepts(name):
    environment = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    settings = read_settings(environment)
    assert settings.delivery == "accel"
    assert settings.data_dir == Path("/data")
    assert settings.public_url.startswith("https://")


def test_the_same_secret_and_log_are_seen_from_both_sides():
    web = read_settings({k: str(v) for k, v in SERVICES["web"]["environment"].items()})
    worker = read_settings({k: str(v) for k, v in SERVICES["worker"]["environment"].items()})
    assert str(web.edge_secret_file) == SERVICES["nginx"]["environment"]["EDGE_SECRET_FILE"]
    start = (NGINX / "start.sh").read_text()
    assert f'"${{EDGE_LOG:={worker.edge_log}}}"' in start
    assert f'"${{EDGE_PREFIX:={Settings().accel_prefix}}}"' in start


def test_web_finds_inference_and_both_know_one_secret():
    web = read_settings({k: str(v) for k, v in SERVICES["web"]["environment"].items()})
    environment = {k: str(v) for k, v in SERVICES["inference"]["environment"].items()}
    inference = read_settings(environment)
    assert web.inference_url == "http://inference:8100"
    assert inference.inference_listen == "0.0.0.0:8100"
    assert web.inference_secret_file == inference.inference_secret_file
    assert "random inference_secret" in (DEPLOY / "make-secrets.sh").read_text()


def test_inference_sees_blobs_and_nothing_else():
    service = SERVICES["inference"]
    assert service["volumes"] == ["blobs:/data/blobs:ro"]
    assert service["secrets"] == ["inference_secret"]
    assert not any("DATABASE" in name for name in service["environment"])
    assert service["networks"] == ["back"]
    assert service["mem_limit"]
    assert "8100" in service["healthcheck"]["test"][-1]


def test_vllm_sees_one_checkpoint_and_is_asked_as_the_comment_says():
    service = SERVICES["vllm"]
    assert service["volumes"] == ["./checkpoint:/checkpoint:ro"]
    assert service["secrets"] == ["inference_secret"]
    assert service["networks"] == ["back"]
    text = (ROOT / "docker-compose.yml").read_text()
    told = dict(re.findall(r"(INFERENCE_(?:URL|DIALECT|MODELS))=(\S+)", text))
    web = {k: str(v) for k, v in SERVICES["web"]["environment"].items()}
    settings = read_settings(web | {PREFIX + name: value for name, value in told.items()})
    assert (settings.inference_url, settings.inference_dialect) == ("http://vllm:8000", "vllm")
    assert settings.inference_models.partition("=")[2] == service["environment"]["NAME"]
    script = (DEPLOY / "vllm" / "serve.sh").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", script))
    assert needed <= set(service["environment"])
    versions = [(ROOT / "bench" / "vllm.py").read_text(), DOCKERFILE]
    assert all("0.32.0" in one and "torch==2.13.0" in one for one in versions)


def test_no_secret_is_written_down():
    secrets = {path["file"] for path in COMPOSE["secrets"].values()}
    assert all(path.startswith("deploy/secrets/") for path in secrets)
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text().split()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|TOKEN", name):
                assert str(value).startswith("/run/secrets/"), name
        used = {f"/run/secrets/{name}" for name in service.get("secrets", ())}
        named = {
            str(value)
            for value in service.get("environment", {}).values()
            if str(value).startswith("/run/secrets/")
        }
        assert named <= used
    assert "tls_key" not in SERVICES["web"]["secrets"]


def test_the_edge_can_write_no_weights_and_the_worker_no_log():
    assert "blobs:/blobs:ro" in SERVICES["nginx"]["volumes"]
    assert not any(volume.startswith("data:") for volume in SERVICES["nginx"]["volumes"])
    assert "edge-log:/var/log/stagerelease:ro" in SERVICES["worker"]["volumes"]
    # Another user than the app's, in the app's group: what the blob store's modes allow.
    app_user, edge_user = SERVICES["web"]["user"], SERVICES["nginx"]["user"]
    assert app_user.split(":")[0] != edge_user.split(":")[0]
    assert app_user.split(":")[1] == edge_user.split(":")[1]


def test_the_schema_is_there_before_anything_runs():
    for name in ("web", "worker", "inference"):
        assert SERVICES[name]["depends_on"]["migrate"] == {
            "condition": "service_completed_successfully"
        }
    assert SERVICES["migrate"]["depends_on"]["db"] == {"condition": "service_healthy"}
    assert SERVICES["nginx"]["depends_on"]["web"] == {"condition": "service_healthy"}


def test_commands_exist():
    known = {command.name for command in app.registered_commands}
    assert {SERVICES[name]["command"][0] for name in APP} <= known


# --- Dockerfile ---------------------------------------------------------------------------------


def stages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in DOCKERFILE.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)\Z", line):
            found[match[2]] = [match[1]]
        elif found and line.strip() and not line.startswith("#"):
            next(reversed(found.values())).append(" ".join(line.split()))
    return found


def test_images_are_built_in_stages_and_run_as_nobody_special():
    built = stages()
    assert list(built) == ["build", "build-inference", "app", "inference", "vllm", "edge"]
    assert built["inference"][0] == "app"  # and so runs as the same user
    assert SERVICES["inference"]["build"]["target"] == "inference"
    built["inference"] = ["on:app", *built["inference"][1:]]
    built["build-inference"] = ["on:build", *built["build-inference"][1:]]
    assert built["app"][0] == built["build"][0] == "python:3.11-slim-bookworm"
    assert all(":" in lines[0] and not lines[0].endswith(":latest") for lines in built.values())
    for name, service in (("app", "web"), ("edge", "nginx"), ("vllm", "vllm")):
        users = [line.split()[1] for line in built[name] if line.startswith("USER ")]
        assert users == [SERVICES[service]["user"]]
        assert SERVICES[service]["build"]["target"] == name
        assert not any(re.search(r"\b(gcc|build-essential|ADD)\b", line) for line in built[name])


def test_what_is_copied_is_there_and_nothing_else_reaches_the_build():
    allowed = [
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert "*" in (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for lines in stages().values():
        for line in lines:
            if not line.startswith("COPY ") or "--from=" in line:
                continue
            sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists(), source
                path = source.removeprefix("./")
                assert any(path == a or path.startswith(a + "/") for a in allowed), source


# --- nginx --------------------------------------------------------------------------------------


def test_every_placeholder_is_filled_in_and_no_other_is():
    start = (NGINX / "start.sh").read_text()
    wanted = set(re.findall(r"\$\{(\w+)\}", TEMPLATE.replace("${EDGE_…}", "")))
    call = re.search(r"envsubst '([^']*)'", start)
    assert call is not None
    assert set(re.findall(r"\$\{(\w+)\}", call[1])) == wanted
    assert all(name.startswith("EDGE_") and not name.startswith(PREFIX) for name in wanted)


def test_both_sides_call_their_headers_the_same():
    variable = "$upstream_http_" + DOWNLOAD_HEADER.lower().replace("-", "_")
    assert variable in TEMPLATE
    assert f"proxy_hide_header {DOWNLOAD_HEADER};" in TEMPLATE
    assert EDGE_HEADER in (NGINX / "watch-cuts.sh").read_text().lower()
    assert f'proxy_set_header {EDGE_HEADER} "";' in TEMPLATE.lower()


@pytest.mark.parametrize(
    "line",
    [
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        'proxy_set_header Forwarded "";',
        "proxy_http_version 1.1;",
        "proxy_buffering off;",
        "proxy_request_buffering off;",
        "client_max_body_size 0;",
        "etag off;",
        "gzip off;",
        "server_tokens off;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
    ],
)
def test_the_configuration_says(line):
    assert line in TEMPLATE


def test_no_answer_that_takes_its_time_is_cut_at_the_edge():
    """What is not streamed says nothing until it is whole; the web process ends it in time."""
    longest = Settings.model_fields["inference_longest"].metadata
    most = next(rule.le for rule in longest if hasattr(rule, "le"))
    for place in ("/v1/", "/playground"):
        [found] = re.findall(rf"location \^~ {place} \{{(.*?)\}}", TEMPLATE, re.S)
        [seconds] = re.findall(r"proxy_read_timeout (\d+)s;", found)
        assert int(seconds) > most


def test_no_log_holds_headers_or_queries():
    formats = re.findall(r"log_format (?:.|\n)*?;", TEMPLATE)
    assert len(formats) == 2
    for text in formats:
        assert not re.search(r"\$(http_|args|query|request\b|request_uri|cookie)", text)


def test_a_cut_takes_five_seconds_at_most():
    """The longest way: two polls that hang, then connections that end by the timer alone."""
    watch = (NGINX / "watch-cuts.sh").read_text()
    poll = float(re.search(r"^POLL=([0-9.]+)", watch, re.M)[1])
    blind = int(re.search(r"^BLIND=([0-9]+)", watch, re.M)[1])
    patience = float(re.search(r"--max-time ([0-9.]+)", watch)[1])
    timer = int(re.search(r"worker_shutdown_timeout ([0-9]+)ms;", TEMPLATE)[1]) / 1000
    assert blind * (poll + patience) + timer <= 5.0


@pytest.mark.parametrize(
    "script", ["nginx/start.sh", "nginx/watch-cuts.sh", "vllm/serve.sh", "make-secrets.sh"]
)
def test_scripts_are_plain_shell_and_can_be_run(script):
    path = DEPLOY / script
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True)
    assert not re.search(r"\[\[|\blocal\b|\bfunction\b|<<<|\$\(\(.*\*\*", path.read_text())


def test_make_secrets_makes_them_once(tmp_path):
    command = ["sh", DEPLOY / "make-secrets.sh", tmp_path / "s", "localhost", "127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    mounted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert mounted <= set(made)
    assert len(made["edge_secret"].strip()) == 64
    assert made["edge_secret"] != made["database_password"]
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == made
