"""The OpenAPI document, the page that shows it, and a client made from it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from harness import STANDIN, Server
from openapi_check import Contract
from openapi_spec_validator import validate

from remote_lab.app import create_app
from remote_lab.config import Config
from remote_lab.web.openapi import ERRORS, HTTP_CODES, codes

TOPOLOGY = "nodes: [ r1, r2 ]\n"
UNDOCUMENTED = {"/openapi.json", "/docs", "/docs/<name>", "/static/<path:filename>"}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """As a running server serves it."""
    response = server.call("GET", "/openapi.json")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    answer: dict[str, Any] = response.json()
    return answer


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation by method and path."""
    return {
        (method, path): operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
        if method != "parameters"
    }


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """By the schema of OpenAPI 3.1 itself."""
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_every_route_is_in_the_document(document: dict[str, Any]) -> None:
    """With a name of its own."""
    app = create_app(Config(provider="clab", netlab=str(STANDIN)))
    routes = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in UNDOCUMENTED
    }
    found = operations(document)
    assert routes == set(found) == set(ERRORS)
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)


def test_calls_for_an_active_session_say_so(document: dict[str, Any]) -> None:
    """In the way that tools understand: as the key in a header."""
    assert document["components"]["securitySchemes"]["session"]["name"] == "X-Session-ID"
    found = operations(document)
    needing = {key for key, operation in found.items() if any("session" in choice for choice in operation["security"])}
    assert needing == {key for key in ERRORS if key[1].startswith("/lab") or key[1] == "/session/heartbeat"}


def test_calls_say_how_a_token_is_given(document: dict[str, Any]) -> None:
    """As Bearer or as a password, on every call but the one for monitoring, and none where the server runs open."""
    for key, operation in operations(document).items():
        named = [{name for name in choice if name != "session"} for choice in operation["security"]]
        assert named == ([] if key == ("get", "/healthz") else [{"token"}, {"token_as_password"}, set()]), key
        assert {"401", "429"} <= set(operation["responses"]) or key == ("get", "/healthz")


def test_every_json_has_an_example_that_fits(document: dict[str, Any], contract: Contract) -> None:
    """Answers, errors and bodies of requests alike."""
    checked = 0
    for key, operation in operations(document).items():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media_type, content in [item for body in bodies for item in body.get("content", {}).items()]:
            assert content["examples"], (key, media_type)
            for name, example in content["examples"].items():
                contract.check_example(content["schema"], example["value"], f"{key} {media_type} {name}")
                checked += 1
    assert checked > 50


def test_every_code_is_that_of_some_operation_or_of_http(document: dict[str, Any]) -> None:
    """And the one schema of errors has them all."""
    assert document["components"]["schemas"]["Error"]["properties"]["code"]["enum"] == codes()
    answers = [answer for operation in operations(document).values() for answer in operation["responses"].values()]
    used = {
        example["value"]["code"]
        for answer in answers
        for content in answer.get("content", {}).values()
        if content["schema"].get("$ref", "").endswith("/Error")
        for example in content["examples"].values()
    }
    assert set(codes()) - used <= set(HTTP_CODES)


def test_documented_errors_are_in_the_documentation() -> None:
    """A code that programs may meet is one that people can look up."""
    text = (Path(__file__).parents[2] / "docs" / "api.rst").read_text()
    assert [code for code in codes() if f"``{code}``" not in text] == []


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    """Every file it names is served here, and browsers are told to go nowhere else."""
    page = server.call("GET", "/docs")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    named = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
    assert len(named) == 5
    for path in named:
        answer = server.call("GET", path)
        assert (answer.status_code, bool(answer.content)) == (200, True), path
    assert server.call("GET", "/docs/").text == page.text


@pytest.mark.parametrize("name", ["nowhere.js", "index.html", "..%2f__init__.py", "%2e%2e/README.md", "swagger-ui.js"])
def test_the_page_has_no_other_files(server: Server, name: str) -> None:
    """And says so as everything here does."""
    response = server.call("GET", f"/docs/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A client that openapi-python-client makes from the document alone."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "settings.yml").write_text("post_hooks: []\n")
    (folder / "openapi.json").write_text(server.call("GET", "/openapi.json").text)
    command = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", "openapi.json", "--output-path", "generated_lab_client", "--config", "settings.yml"),
    ]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("generated_lab_client")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Whatever a test opens is closed behind it."""
    with ExitStack() as stack:
        yield stack


def test_a_generated_client_runs_a_session(server: Server, generated: ModuleType, connections: ExitStack) -> None:
    """From the queue to a lab and back: the document says all that a program must know."""

    def call(client: Any, tag: str, name: str, *arguments: Any, **more: Any) -> Any:
        operation = importlib.import_module(f"{generated.__name__}.api.{tag}.{name}")
        return operation.sync_detailed(*arguments, client=client, **more)

    models = importlib.import_module(f"{generated.__name__}.models")
    types = importlib.import_module(f"{generated.__name__}.types")
    anybody = connections.enter_context(generated.Client(base_url=server.url))
    wish = models.SessionWish(purpose="generated", lease_seconds=600.0)
    opened = call(anybody, "sessions", "post_session", body=wish)
    assert (opened.status_code, opened.parsed.position) == (201, 0)
    session_id = opened.parsed.session_id
    owner = connections.enter_context(
        generated.AuthenticatedClient(base_url=server.url, token=session_id, prefix="", auth_header_name="X-Session-ID")
    )
    try:
        status = call(anybody, "sessions", "get_session", session_id, wait=5.0).parsed
        assert (status.status.value, status.held_by, status.lease_expires_at is None) == ("active", [], False)
        assert call(owner, "lab", "get_lab_devices").parsed.code.value == "lab_not_found"
        topology = types.File(payload=TOPOLOGY.encode(), file_name="demo.yml")
        extra = types.File(payload=b"hello", file_name="configs/r1.j2")
        acquired = call(owner, "lab", "post_lab", body=models.LabForm(topology=topology, extra_files=[extra])).parsed
        assert [device.name for device in acquired.devices] == ["r1", "r2"]
        assert acquired.devices[0].raw["ansible_host"] == "192.168.1.101"
        lab = call(owner, "lab", "get_lab").parsed
        assert (lab.running, lab.ref_count, lab.topology) == (True, 1, "demo.yml")
        assert "Lab devices configured" in call(owner, "lab", "get_lab_log").content.decode()
        state = call(owner, "lab", "get_lab_state").parsed
        assert [(device.name, device.device, device.outputs) for device in state.devices] == [
            ("r1", None, []),
            ("r2", None, []),
        ]
        assert call(owner, "lab", "get_lab_ssh_key").parsed.code.value == "ssh_key_not_found"
        refused = call(owner, "lab", "delete_lab", force=False)
        assert (refused.status_code, refused.parsed.code.value) == (409, "lab_in_use")
        assert call(owner, "lab", "post_lab_release").status_code == 204
        assert call(owner, "sessions", "post_session_heartbeat").status_code == 204
        extended = call(anybody, "sessions", "post_session_extend", session_id, body=models.LeaseExtension(60.0))
        assert extended.parsed.lease_expires_at < status.lease_expires_at
        assert call(owner, "lab", "delete_lab").status_code == 202
        assert call(anybody, "health", "get_debug_health").parsed.sessions == 1
    finally:
        ended = call(anybody, "sessions", "delete_session", session_id)
    assert ended.status_code == 204
    assert call(anybody, "sessions", "delete_sessions_of_ci_job", ci_job="4711").parsed.ended == 0
    gone = call(anybody, "sessions", "get_session", session_id).parsed
    assert (gone.code.value, gone.reason) == ("session_not_found", "its owner ended it")
