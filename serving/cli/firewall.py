"""A country's egress policy, deny by default, made from its file: as nftables rules and as Kubernetes policies. Pure.

Both say the same: to loopback (or the country's own pods) and to ``residency.networks`` everything, to anywhere else
nothing but the gateway's answers to whoever called it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from serving.placement import COUNTRY_LABEL
from tenants.country import Country
from tenants.networks import merged

HEAD_LABELS = {"ray.io/node-type": "head"}
"""What KubeRay labels the pod of a cluster's head with."""

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_DNS = {
    "namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}|[0-9]{1,10}")
_CGROUP = re.compile(r"[A-Za-z0-9_.@:\\-]+(/[A-Za-z0-9_.@:\\-]+)*")


def digest(country: Country) -> str:
    """Changes when the policy does: what is loaded can be compared with what the file says."""
    facts = [country.code, country.isolation, country.port, *map(str, merged(country.residency.networks))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def table(country: str) -> str:
    """The name of a country's nftables table, of the family inet."""
    return f"domicile_{country}"


def nftables(country: Country, *, user: str = "", cgroup: str = "") -> str:
    """An nftables ruleset for the processes of one user, or of one cgroup (v2) and those below it.

    Args:
        user: a name or an id.
        cgroup: a path below the root of the hierarchy, as in ``domicile.slice/domicile-ee.slice``.

    Raises:
        ValueError: not exactly one of the two, or not one that can be written in a rule.
    """
    homes = merged(country.residency.networks)
    template = Template(files("serving").joinpath("deploy", "egress", "country.nft").read_text(encoding="utf-8"))
    return template.substitute(
        code=country.code,
        name=" ".join(country.english_name.split()),
        digest=digest(country),
        options=f"--user {user}" if user else f"--cgroup {cgroup}",
        home4=_elements([str(each) for each in homes if each.version == 4]),
        home6=_elements([str(each) for each in homes if each.version == 6]),
        who=_who(user, cgroup),
        port=country.port,
    )


def network_policies(country: Country, namespace: str = "") -> list[dict[str, Any]]:
    """Kubernetes policies for the pods that carry the country's label. A cell's namespace is closed to all others."""
    namespace = namespace or (f"domicile-{country.code}" if country.isolation == "cell" else "domicile")
    own = {COUNTRY_LABEL: country.code}
    inside: list[dict[str, Any]] = [{"podSelector": {"matchLabels": own}}]
    if country.isolation == "shared":
        inside.append({"podSelector": {"matchLabels": HEAD_LABELS}})
    inside += [{"ipBlock": {"cidr": str(network)}} for network in merged(country.residency.networks)]
    spec = {
        "podSelector": {"matchLabels": own},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": inside}, {"ports": [{"protocol": "TCP", "port": country.port}]}],
        "egress": [
            {"to": inside},
            {"to": [_DNS], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
        ],
    }
    policies = [_policy(country, f"domicile-{country.code}", namespace, spec)]
    if country.isolation == "cell":
        closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        policies.insert(0, _policy(country, f"domicile-{country.code}-closed", namespace, closed))
    return policies


def _policy(country: Country, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {COUNTRY_LABEL: country.code},
            "annotations": {"domicile/policy": digest(country)},
        },
        "spec": spec,
    }


def _elements(networks: Sequence[str]) -> str:
    # nft does not read an empty list of elements.
    return f"elements = {{ {', '.join(networks)} }}" if networks else "# none"


def _who(user: str, cgroup: str) -> str:
    if bool(user) == bool(cgroup):
        raise ValueError("name either a user or a cgroup: the rules are for its processes")
    if user:
        if not _USER.fullmatch(user):
            raise ValueError(f"'{user}' is no name of a user, nor an id")
        return f'meta skuid "{user}"' if not user.isdigit() else f"meta skuid {user}"
    path = cgroup.strip("/")
    if not _CGROUP.fullmatch(path):
        raise ValueError(f"'{cgroup}' is no path of a cgroup")
    return f'socket cgroupv2 level {path.count("/") + 1} "{path}"'
