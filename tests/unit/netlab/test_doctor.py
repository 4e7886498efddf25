"""The doctor: on machines that have everything and on machines that lack everything."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from remote_lab.netlab import doctor, features
from remote_lab.netlab.doctor import Finding
from remote_lab.netlab.rootless import subids
from remote_lab.netlab.runner import Runner


def examine(state_dir: Path, image: str | None = None, provider: str = "auto") -> dict[str, Finding]:
    runner = Runner(
        provider=provider,
        netlab=None,
        image=image,
        image_dir=state_dir / "images",
        image_mirror=None,
        state_dir=state_dir / "not-there-yet",
        management_pool=IPv4Network("198.18.0.0/16"),
        boot_seconds=20.0,
        teardown_seconds=20.0,
    )
    findings = runner.doctor()
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_machine_that_lacks_everything_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, tools and image nothing is raised; each finding says what to do."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    for module in (doctor, features):
        monkeypatch.setattr(module, "_PATH", str(tmp_path))
    monkeypatch.setattr(subids, "PATH", str(tmp_path))
    found = examine(tmp_path)
    assert (found["tool newuidmap"].ok, found["tool newuidmap"].required) == (False, True)
    assert "apt-get install uidmap" in found["tool newuidmap"].remedy
    assert "without root" in found["user"].detail
    assert (found["tool ip"].ok, found["tool ip"].remedy) == (False, "apt-get install iproute2")
    assert (found["lab image"].ok, "apt-get install mmdebstrap" in found["lab image"].remedy) == (False, True)
    assert "cannot be looked at" in found["kernel features"].detail
    assert [finding for finding in found.values() if not finding.ok and not finding.remedy] == []


def test_switched_off_user_namespaces_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting that keeps them away is named, with the command that changes it."""
    monkeypatch.setattr(doctor, "_read", lambda path: "0")
    found = examine(tmp_path)["user namespaces"]
    assert (found.ok, "sysctl -w user.max_user_namespaces" in found.remedy) == (False, True)


def test_missing_kernel_feature_is_told_with_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labs run without it, so it is no reason not to start; what is there is said as well."""
    monkeypatch.setattr(features, "missing_kernel_features", lambda: frozenset({"vrf"}))
    found = examine(tmp_path)
    missing, there = found["kernel: vrf"], found["kernel: vxlan"]
    assert (missing.ok, missing.required, "modprobe vrf" in missing.remedy) == (False, False, True)
    assert "CONFIG_NET_VRF" in missing.remedy
    assert (there.ok, there.remedy) == (True, "")
    assert {name.removeprefix("kernel: ") for name in found if name.startswith("kernel: ")} == set(features.FEATURES)


def test_image_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A root file system that was chosen and is none."""
    found = examine(tmp_path, image=str(tmp_path))["lab image"]
    assert (found.ok, "REMOTE_LAB_IMAGE" in found.remedy) == (False, True)


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder with what has to be freed in it."""

    class Full:
        free = 1

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Full)
    found = examine(tmp_path)["disk of the state folder"]
    assert (found.ok, found.required, "512 MiB" in found.remedy) == (False, True, True)


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are tried by root only")
def test_mounts_are_tried_for_real(tmp_path: Path) -> None:
    """As root idmapped mounts and overlayfs are tried where the folders will be, and nothing of it stays."""
    before = Path("/proc/self/mountinfo").read_text()
    found = examine(tmp_path, provider="netns")
    folder = found[f"state folder ({tmp_path / 'not-there-yet'})"]
    assert (folder.ok, "idmapped" in folder.detail) == (True, True)
    assert found["overlayfs"].ok
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not (tmp_path / "not-there-yet").exists()


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are tried by root only")
def test_file_system_without_idmapped_mounts_is_told() -> None:
    """Where a pod could not bind its folder, the file system is named and others are proposed."""
    found = examine(Path("/proc"), provider="netns")["state folder (/proc/not-there-yet)"]
    assert (found.ok, found.detail.startswith("on proc: "), "ext4" in found.remedy) == (False, True, True)
