"""The unit in a real systemd: what it takes away is not missed, and what becomes of labs when the service ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from booted import SYSTEMD, BootedService, booted
from harness import ROOT, list_labs, processes_named, ssh, wait_until

from remote_lab.netlab.pod_site import missing_requirements, state_tag

PAIR = ROOT / "examples" / "ospf-pair.yml"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot a systemd"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="there is no systemd on this machine"),
    pytest.mark.skipif(bool(missing_requirements()), reason="labs cannot run here"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedService]:
    with booted(tmp_path_factory.mktemp("host")) as service:
        yield service


def pods(service: BootedService) -> list[int]:
    """The first processes of its labs' sandboxes."""
    return processes_named(f"remote-lab-pod:{state_tag(service.installed_state_dir)}:")


def test_labs_live_through_restarts_and_crashes_and_end_with_the_service(service: BootedService) -> None:
    """One lab under the restrictions of the unit: booted, kept by `restart` and `kill -9`, ended by `stop`."""
    service.systemctl("start", "remote-lab")
    assert service.call("GET", "/healthz").status_code == 204
    wait_until(lambda: "queue length 0" in service.systemctl("show", "-P", "StatusText", "remote-lab"), "a status")

    session_id = service.open_session()
    answer = service.acquire(session_id, PAIR)
    assert answer.status_code == 200, answer.text
    address = answer.json()["devices"][0]["raw"]["ansible_host"]
    assert ssh(address, "hostname") == "r1\n"
    assert "PRIVATE KEY" in service.call("GET", "/lab/ssh-key", session_id).text
    (pod,) = pods(service)

    service.systemctl("restart", "remote-lab")
    assert service.call("GET", "/lab", session_id).json()["running"]

    main = service.systemctl("show", "-P", "MainPID", "remote-lab")
    service.run("kill", f"-{int(signal.SIGKILL)}", main)
    wait_until(lambda: service.systemctl("show", "-P", "MainPID", "remote-lab") not in ("0", main), "a new process")
    wait_until(lambda: service.systemctl("show", "-P", "ActiveState", "remote-lab") == "active", "it is ready again")
    assert service.call("GET", "/lab", session_id).json()["running"]
    assert pods(service) == [pod]
    assert ssh(address, "hostname") == "r1\n"

    service.systemctl("stop", "remote-lab")
    assert pods(service) == []
    assert list_labs(service.state_dir) == []
    assert not (service.group / "system.slice/remote-lab.service").exists()  # where any process of it would be
    assert service.systemctl("show", "-P", "Result", "remote-lab") == "success"

    service.systemctl("start", "remote-lab")
    assert service.status(session_id) == ("active", 0)
    assert not service.call("GET", "/lab", session_id).json()["running"]
    service.end_session(session_id)
    service.systemctl("stop", "remote-lab")
