"""`remote-lab image`: the root file system that labs in namespaces run on."""

from __future__ import annotations

import logging.config
from typing import TYPE_CHECKING

import click

from remote_lab.cli import output
from remote_lab.cli.group import Group, json_option
from remote_lab.config import Config
from remote_lab.logs import logging_config

if TYPE_CHECKING:
    from remote_lab.netlab.image import Images


@click.group(cls=Group)
def image() -> None:
    """The root file system that labs in namespaces run on."""


def _images() -> Images:
    from remote_lab.netlab.image import Images

    config = Config.from_environment()
    return Images(config.image_dir, mirror=config.image_mirror, chosen=config.image)


@image.command()
@click.option("--if-needed", is_flag=True, help="Only where labs run in namespaces.")
def build(if_needed: bool) -> None:
    """Build the image of this version if it is missing; takes about half a minute."""
    from remote_lab.app import create_runner
    from remote_lab.netlab.pod_site import PROVIDER

    logging.config.dictConfig(logging_config("INFO"))
    if if_needed and (provider := create_runner(Config.from_environment()).provider) != PROVIDER:
        click.echo(f"Labs run by {provider}: no image is needed.")
        return
    click.echo(f"Labs run on the image {_images().ensure()}")


@image.command(name="list")
@json_option
def list_images(as_json: bool) -> None:
    """List the built images."""
    found = list(_images().all())
    if as_json:
        output.print_json(found)
    elif not found:
        click.echo("No image is built. `remote-lab image build` builds the one that labs run on.")
    else:
        output.table(
            ("NAME", "USED", "SIZE", "BUILT", "PATH"),
            (
                (
                    one.name,
                    "by new labs" if one.is_current else None,
                    f"{one.size_bytes / 1e6:.0f} MB",
                    f"{output.age(one.built_at)} ago",
                    one.path,
                )
                for one in found
            ),
        )


@image.command()
@click.argument("name")
def rm(name: str) -> None:
    """Remove the image NAME; refused while labs run on this host."""
    _images().remove(name)
    click.echo(f"Removed {name}.")
