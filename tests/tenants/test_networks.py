from __future__ import annotations

from pathlib import Path

import pytest

from tenants.networks import merged, plain, within
from tests.tenants.test_country import MINIMAL, country, problems


def networks(*names: str) -> dict[str, object]:
    return {**MINIMAL, "residency": {"networks": list(names)}}


def test_a_country_is_on_loopback_alone_until_it_says_where_else() -> None:
    assert country().residency.networks == ()
    assert within("127.0.0.1", ())
    assert within("127.3.2.1", ())
    assert within("::1", ())
    assert not within("10.0.0.1", ())


def test_what_is_at_home() -> None:
    home = country(residency={"networks": ["10.20.0.0/16", "2001:db8:20::/48"]}).residency.networks
    assert within("10.20.255.255", home)
    assert within("::ffff:10.20.0.1", home), "an IPv6 socket shows IPv4 peers so"
    assert within("2001:db8:20::1", home)
    for abroad in ("10.21.0.0", "::ffff:10.21.0.0", "2001:db8:21::", "fe80::1", "8.8.8.8", "home.example.ee", ""):
        assert not within(abroad, home), abroad


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0.0.0.0/0", "is wider than /8"),
        ("0.0.0.0/1", "is wider than /8"),
        ("10.0.0.0/7", "is wider than /8"),
        ("::/0", "is wider than /32"),
        ("2000::/3", "is wider than /32"),
        ("::ffff:0:0/96", "holds IPv4 addresses in disguise"),
        ("64:ff9b::/96", "holds IPv4 addresses in disguise"),
        ("2002:808:808::/48", "holds IPv4 addresses in disguise"),
        ("127.0.0.0/8", "is no place"),
        ("::1/128", "is no place"),
        ("169.254.169.254/32", "is no place"),
        ("fe80::/64", "is no place"),
        ("224.0.0.0/24", "is no place"),
        ("10.20.1.0/16", "is not written as a network is: 10.20.0.0/16 is meant"),
        ("10.20.1.1", "is not written as a network is: 10.20.1.1/32 is meant"),
        ("2001:DB8::/32", "is not written as a network is: 2001:db8::/32 is meant"),
        ("10.20.0.0/33", "is not a network"),
        ("home.example.ee", "is not a network"),
    ],
)
def test_r11_what_says_nothing_of_where_it_is_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (found,) = problems(tmp_path, networks(name))
    assert found.startswith(f"residency.networks[0]: {message}"), found


def test_r11_nor_is_it_put_together_from_pieces(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, networks(*(f"{first}.0.0.0/8" for first in range(16, 32))))
    assert found.startswith("residency.networks: together make up 16.0.0.0/4, which is wider than /8"), found


def test_a_network_is_named_once(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, networks("10.0.0.0/8", "10.0.0.0/8"))
    assert found.startswith("residency.networks: lists the same entry twice")


def test_overlapping_networks_become_one() -> None:
    found = [str(each) for each in merged(["2001:db8::/48", "10.2.0.0/16", "10.0.0.0/8", "192.168.1.0/24"])]
    assert found == ["10.0.0.0/8", "192.168.1.0/24", "2001:db8::/48"]


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="home"):
        plain("home")
