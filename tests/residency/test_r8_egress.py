"""R5, R6 and R8: what may leave a country, as rules that a kernel or a cluster enforces, made from its file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serving.cli import app
from serving.cli.firewall import digest, network_policies, nftables
from serving.placement import COUNTRY_LABEL
from tenants.country import Country
from tests import schemas
from tests.house import SHIPPED
from tests.residency.namespaces import ABROAD, HOME, INSIDE, Namespace, cable, missing
from tests.tenants.test_country import MINIMAL

CODES = sorted(path.parent.name for path in SHIPPED.glob("*/tenant.yaml"))
NETWORKS = ["10.20.0.0/16", "2001:db8:20::/48"]
NOBODY = 65534
KERNEL = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def country(**changes: object) -> Country:
    return Country.model_validate({**MINIMAL, "residency": {"networks": NETWORKS}, **changes})


def written(*words: str) -> str:
    done = CliRunner().invoke(app, ["egress", *words], env={"DOMICILE_COUNTRIES": str(SHIPPED)})
    assert done.exit_code == 0, done.output
    return done.stdout


# Made from the file


def test_the_rules_change_when_the_file_does() -> None:
    one, port, wider = country(), country(gateway={"port": 1234}), country(residency={"networks": NETWORKS[:1]})
    assert len({digest(each) for each in (one, port, wider)}) == 3
    assert digest(one) == digest(country(name="Another name"))
    for each in (one, port, wider):
        assert digest(each) in nftables(each, user="nobody")
        assert f"tcp sport {each.port} " in nftables(each, user="nobody")
        (policy,) = network_policies(each)
        assert policy["metadata"]["annotations"]["domicile/policy"] == digest(each)


def test_networks_that_overlap_are_written_once() -> None:
    both = country(residency={"networks": ["10.20.0.0/16", "10.20.3.0/24"]})
    assert "elements = { 10.20.0.0/16 }" in nftables(both, user="nobody")


@pytest.mark.parametrize(
    "who",
    [
        {},
        {"user": "nobody", "cgroup": "a"},
        {"user": 'x" accept #'},
        {"user": "a\nb"},
        {"cgroup": "a/../b c"},
        {"cgroup": 'a"'},
        {"cgroup": "/"},
    ],
)
def test_what_cannot_be_written_in_a_rule_is_refused(who: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"user|cgroup"):
        nftables(country(), **who)


def test_a_name_says_nothing_in_a_rule() -> None:
    sly = country(english_name="Estonia\n}\nflush ruleset")
    assert "flush ruleset" not in [line.strip() for line in nftables(sly, user="nobody").splitlines()]


def test_the_command_says_what_is_wrong() -> None:
    run = CliRunner()
    env = {"DOMICILE_COUNTRIES": str(SHIPPED)}
    assert run.invoke(app, ["egress", "nftables", "xx"], env=env).exit_code == 2
    assert run.invoke(app, ["egress", "nftables", "ee", "--user", "a b"], env=env).exit_code == 2
    assert 'meta skuid "domicile-ee"' in written("nftables", "ee")


# Kubernetes


@pytest.mark.parametrize("isolation", ["shared", "cell"])
@pytest.mark.parametrize("code", CODES)
def test_kubernetes_takes_the_policies(code: str, isolation: str) -> None:
    for policy in network_policies(country(code=code, isolation=isolation)):
        schemas.check("networkpolicy", policy)
    for policy in yaml.safe_load_all(written("networkpolicy", code)):
        schemas.check("networkpolicy", policy)


def test_kubernetes_would_not_take_any() -> None:
    (policy,) = network_policies(country())
    policy["spec"]["egres"] = policy["spec"].pop("egress")
    with pytest.raises(AssertionError, match="egres"):
        schemas.check("networkpolicy", policy)


def test_r8_pods_talk_to_their_country_and_to_nobody_else() -> None:
    (policy,) = network_policies(country())
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {COUNTRY_LABEL: "ee"}}
    assert spec["policyTypes"] == ["Ingress", "Egress"], "what has no rule is refused"
    inside, names = spec["egress"]
    assert [peer["ipBlock"]["cidr"] for peer in inside["to"] if "ipBlock" in peer] == NETWORKS
    assert {port["port"] for port in names["ports"]} == {53}
    assert all(rule["to"] for rule in spec["egress"]), "a rule without peers would mean everybody"


def test_r5_anybody_may_call_the_gateway_and_nothing_else() -> None:
    (policy,) = network_policies(country(gateway={"port": 8443}))
    (anybody,) = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert anybody == {"ports": [{"protocol": "TCP", "port": 8443}]}


def selectors(policy: dict[str, Any]) -> list[dict[str, str]]:
    return [
        peer["podSelector"]["matchLabels"]
        for rule in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ()))
        for peer in (*rule.get("from", ()), *rule.get("to", ()))
        if "podSelector" in peer and "namespaceSelector" not in peer
    ]


def test_r2_a_cell_shares_nothing_and_its_namespace_is_closed() -> None:
    closed, own = network_policies(country(isolation="cell"))
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert closed["metadata"]["namespace"] == own["metadata"]["namespace"] == "domicile-ee"
    assert {frozenset(each.items()) for each in selectors(own)} == {frozenset({(COUNTRY_LABEL, "ee")})}
    (shared,) = network_policies(country(), "elsewhere")
    assert {"ray.io/node-type": "head"} in selectors(shared), "its head is everybody's"
    assert shared["metadata"]["namespace"] == "elsewhere"


# nftables, in the kernel

_SERVE = """
import os, socket, sys, threading
user, *ports = map(int, sys.argv[1:])
def serve(server):
    while True:
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())
        connection.close()
for port in ports:
    threading.Thread(target=serve, args=(socket.create_server(("0.0.0.0", port)),)).start()
os.setuid(user)
print("ready")
threading.Event().wait()
"""
_CALL = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
try:
    with socket.socket() as connection:
        connection.settimeout(float(sys.argv[4]))
        connection.connect((sys.argv[2], int(sys.argv[3])))
        print("answered", connection.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""
_SEND = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect((sys.argv[2], int(sys.argv[3])))
    try:
        sender.send(b"hello")
        print("sent")
        sender.send(b"again")
    except OSError as error:
        print(type(error).__name__)
"""
_SNIFF = """
import socket
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(0x0800))
sniffer.bind(("far", 0))
print("ready")
while True:
    packet, (_, _, kind, *_) = sniffer.recvfrom(2048)
    if kind == socket.PACKET_OUTGOING:
        continue
    print(*map(socket.inet_ntoa, (packet[12:16], packet[16:20])), flush=True)
"""
PATIENT, BRIEF = "20", "1.5"


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with cable() as both:
        yield both


def call(place: Namespace, user: int, host: str, port: int, timeout_s: str = PATIENT) -> str:
    return place.python(_CALL, str(user), host, str(port), timeout_s)


def counted(inside: Namespace) -> dict[str, int]:
    listed = json.loads(inside.run("nft", "-j", "list", "table", "inet", "domicile_ee"))["nftables"]
    return {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}


@KERNEL
@pytest.mark.parametrize("code", CODES)
def test_nft_takes_the_rules_of_every_country(code: str, ends: tuple[Namespace, Namespace]) -> None:
    inside, _ = ends
    inside.run("nft", "-c", "-f", "-", text=written("nftables", code, "--user", "nobody"))


@KERNEL
def test_r8_the_kernel_lets_a_country_s_packets_home_and_nowhere_else(ends: tuple[Namespace, Namespace]) -> None:
    inside, outside = ends
    rules = nftables(country(), user="nobody")
    for _ in range(2):
        inside.run("nft", "-f", "-", text=rules)
    with outside.running(_SERVE, "0", "4318"), outside.running(_SNIFF) as wire:
        assert call(inside, NOBODY, HOME, 4318) == f"answered {INSIDE[HOME]}"
        assert counted(inside) == {"abroad": 0, "resolver": 0}
        assert call(inside, NOBODY, ABROAD, 4318) == "ConnectionRefusedError", "told at once, not left to wait"
        assert counted(inside)["abroad"] == 1
        inside.python(_SEND, str(NOBODY), ABROAD, "4318")
        assert counted(inside)["abroad"] > 1
        wire.kill()
        assert wire.stdout is not None
        seen = {line.split()[1] for line in wire.stdout.read().splitlines()}
        assert seen == {HOME}, "nothing came out of the cable but what went home"
        assert call(inside, 0, ABROAD, 4318) == f"answered {INSIDE[ABROAD]}", "the rules are the country's alone"


@KERNEL
def test_r8_a_resolver_of_the_machine_is_not_asked(ends: tuple[Namespace, Namespace]) -> None:
    inside, _ = ends
    inside.run("nft", "-f", "-", text=nftables(country(), user="nobody"))
    with inside.running(_SERVE, "0", "53", "8000"):
        assert call(inside, NOBODY, "127.0.0.1", 8000) == "answered 127.0.0.1"
        assert call(inside, NOBODY, "127.0.0.1", 53) == "ConnectionRefusedError"
        assert call(inside, 0, "127.0.0.1", 53) == "answered 127.0.0.1"
    assert counted(inside) == {"abroad": 0, "resolver": 1}


@KERNEL
def test_r5_callers_from_anywhere_get_the_gateway_s_answers_only(ends: tuple[Namespace, Namespace]) -> None:
    inside, outside = ends
    inside.run("nft", "-f", "-", text=nftables(country(), user="nobody"))
    with inside.running(_SERVE, str(NOBODY), "9233", "9999"):
        assert call(outside, 0, INSIDE[ABROAD], 9233) == f"answered {ABROAD}"
        assert call(outside, 0, INSIDE[HOME], 9999) == f"answered {HOME}"
        assert counted(inside)["abroad"] == 0
        assert call(outside, 0, INSIDE[ABROAD], 9999, BRIEF) == "TimeoutError"
        assert counted(inside)["abroad"] > 0


_IN_CGROUP = """
umount -l /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 none /sys/fs/cgroup || exit 77
trap 'rmdir /sys/fs/cgroup/domicile-test/ee /sys/fs/cgroup/domicile-test' EXIT
mkdir -p /sys/fs/cgroup/domicile-test/ee
nft -f "$1" || exit 1
sh -c 'echo $$ > /sys/fs/cgroup/domicile-test/ee/cgroup.procs; exec "$@"' sh "$2" -c "$3" 0 "$4" 4318 20
exec "$2" -c "$3" 0 "$4" 4318 20
"""


@KERNEL
def test_r8_the_rules_may_be_for_a_cgroup(ends: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    inside, outside = ends
    file = tmp_path / "rules.nft"
    file.write_text(nftables(country(), cgroup="/domicile-test/ee"))
    script = ["unshare", "-m", "sh", "-c", _IN_CGROUP, "sh", str(file), shutil.which("python3") or "python3", _CALL]
    with outside.running(_SERVE, "0", "4318"):
        done = subprocess.run(
            [*inside.command, *script, ABROAD],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode == 77:
        pytest.skip("no cgroup v2 here")
    assert done.stdout.split("\n")[:2] == ["ConnectionRefusedError", f"answered {INSIDE[ABROAD]}"], done.stderr
    assert re.search(r"abroad\W+\{.*?packets 1 ", inside.run("nft", "list", "ruleset"), re.DOTALL)
