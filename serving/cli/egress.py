"""``domicile egress``: a country's egress policy, made from its file so that the two cannot drift apart."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from serving.cli.firewall import network_policies, nftables
from serving.cli.output import USAGE, fail
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.registry import find_country

egress_app = typer.Typer(no_args_is_help=True, help="Rules that keep a country's packets at home.")

Code = Annotated[str, typer.Argument(metavar="CC", help="The country's code.")]


@egress_app.callback()
def egress() -> None:
    """Rules that keep a country's packets at home. See serving/deploy/egress/README.md for how to load them."""


@egress_app.command("nftables")
def show_nftables(
    country: Code,
    user: Annotated[str, typer.Option(help="Rules for the processes of this user, by name or id.")] = "",
    cgroup: Annotated[str, typer.Option(help="Rules for the processes of this cgroup (v2), by its path.")] = "",
) -> None:
    """Write an nftables ruleset to stdout: to loopback and the country's networks, and nowhere else."""
    described = _country(country)
    try:
        typer.echo(nftables(described, user=user if user or cgroup else f"domicile-{country}", cgroup=cgroup), nl=False)
    except ValueError as error:
        fail(str(error), USAGE)


@egress_app.command("networkpolicy")
def show_network_policy(
    country: Code,
    namespace: Annotated[str, typer.Option(help="domicile-CC for a cell, else domicile, when left out.")] = "",
) -> None:
    """Write Kubernetes NetworkPolicies to stdout: between the country's pods and to its networks, and nowhere else."""
    policies = network_policies(_country(country), namespace)
    typer.echo(f"# Made from {country}'s tenant.yaml by: domicile egress networkpolicy {country}")
    typer.echo(yaml.dump_all(policies, Dumper=_Plain, sort_keys=False), nl=False)


class _Plain(yaml.SafeDumper):
    """Without anchors, which people who read a policy should not have to follow."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _country(code: str) -> Country:
    try:
        return find_country(Settings.from_environment().countries, code)
    except TenantError as error:
        fail(str(error), USAGE)
