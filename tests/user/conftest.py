"""An ordinary user of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ordinary_user import OrdinaryUser, ordinary_user

from remote_lab.netlab.image import Images

SINGLE = "defaults.device: linux\nnodes: [ h1 ]\n"


def image_of_root() -> Path:
    """The image that root's labs run on, built when it is missing."""
    image_dir = Path(os.environ.get("REMOTE_LAB_IMAGE_DIR") or "/var/cache/remote-lab/images")
    return Images(image_dir, mirror=os.environ.get("REMOTE_LAB_IMAGE_MIRROR") or None).ensure()


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user(image=image_of_root()) as someone:
        yield someone


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The topology of one Linux host, which boots the fastest."""
    topology = tmp_path_factory.mktemp("topologies") / "single.yml"
    topology.write_text(SINGLE)
    return topology
