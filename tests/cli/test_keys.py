from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serving.cli.keys import key_app
from serving.cli.organisations import org_app
from tenants.ground import CountryGround
from tenants.keyring import Identified

app = typer.Typer()
app.add_typer(org_app, name="org")
app.add_typer(key_app, name="key")


class Terminal:
    """Somebody at a prompt, with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stdout = self.stderr = ""

    def run(self, *arguments: str) -> int:
        result = CliRunner().invoke(app, list(arguments), env={"DOMICILE_HOME": str(self.home), "COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        self.stdout, self.stderr = result.stdout, result.stderr
        return result.exit_code

    def json(self, *arguments: str) -> dict[str, object]:
        assert self.run(*arguments, "--json") == 0, self.stderr
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document

    def identify(self, token: object, after: timedelta = timedelta()) -> Identified | None:
        """What the gateway of the country would make of a key."""
        keyring = CountryGround(self.home / "countries" / "ee", "ee").keyring()
        return keyring.identify(str(token), datetime.now(UTC) + after)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


@pytest.fixture
def acme(terminal: Terminal) -> Terminal:
    assert terminal.run("org", "create", "ee", "acme") == 0
    return terminal


def test_from_nothing_to_a_key_that_works(terminal: Terminal) -> None:
    created = terminal.json("org", "create", "ee", "acme", "--plan", "startup")
    assert (created["id"], created["plan"], created["models"]) == ("acme", "startup", None)
    key = terminal.json("key", "create", "ee", "--org", "acme")
    assert key["expires"] is None
    found = terminal.identify(key["key"])
    assert found is not None
    assert found.organisation.id == "acme"


def test_a_script_gets_the_key_and_nothing_else_on_stdout(acme: Terminal) -> None:
    assert acme.run("key", "create", "ee", "--org", "acme") == 0
    assert acme.identify(acme.stdout.removesuffix("\n"))
    assert "shown this once" in acme.stderr


def test_the_key_is_kept_nowhere(acme: Terminal) -> None:
    token = str(acme.json("key", "create", "ee", "--org", "acme")["key"])
    secret = token.split("-")[3].encode()
    for path in acme.home.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert acme.run("key", "list", "ee") == 0
    assert token not in acme.stdout


def test_lists_for_people_and_for_scripts(acme: Terminal) -> None:
    assert acme.run("org", "create", "ee", "beam", "--model", "smollm2-135m-instruct") == 0
    first = acme.json("key", "create", "ee", "--org", "acme", "--expires-in", "30d")
    acme.json("key", "create", "ee", "--org", "beam")
    listed = acme.json("key", "list", "ee", "--org", "acme")["keys"]
    assert listed == [{name: value for name, value in first.items() if name != "key"}]
    organisations = acme.json("org", "list", "ee")["organisations"]
    assert isinstance(organisations, list)
    assert [each["models"] for each in organisations] == [None, ["smollm2-135m-instruct"]]
    assert acme.run("key", "list", "ee") == 0
    assert str(first["id"]) in acme.stdout
    assert "active" in acme.stdout
    assert acme.run("org", "list", "ee") == 0
    assert "beam" in acme.stdout


def test_a_key_expires(acme: Terminal) -> None:
    token = acme.json("key", "create", "ee", "--org", "acme", "--expires-in", "90m")["key"]
    assert acme.identify(token, after=timedelta(minutes=89))
    assert acme.identify(token, after=timedelta(minutes=91)) is None


def test_a_revoked_key_opens_nothing(acme: Terminal) -> None:
    key = acme.json("key", "create", "ee", "--org", "acme")
    assert acme.json("key", "revoke", "ee", str(key["id"]))["state"] == "revoked"
    assert acme.identify(key["key"]) is None
    assert acme.run("key", "revoke", "ee", str(key["id"])) == 0
    assert acme.run("key", "rotate", "ee", str(key["id"])) == 1
    assert "ended already" in acme.stderr


def test_rotation_leaves_the_old_key_its_grace(acme: Terminal) -> None:
    old = acme.json("key", "create", "ee", "--org", "acme")
    new = acme.json("key", "rotate", "ee", str(old["id"]), "--grace", "2h")
    assert acme.identify(new["key"], after=timedelta(hours=3))
    assert acme.identify(old["key"], after=timedelta(minutes=119))
    assert acme.identify(old["key"], after=timedelta(minutes=121)) is None


def test_rotation_without_grace(acme: Terminal) -> None:
    old = acme.json("key", "create", "ee", "--org", "acme")
    assert acme.run("key", "rotate", "ee", str(old["id"]), "--grace", "0s") == 0
    assert acme.identify(old["key"]) is None
    assert acme.identify(acme.stdout.strip())


def test_countries_do_not_see_each_other(acme: Terminal) -> None:
    assert acme.json("org", "list", "kr") == {"organisations": []}
    assert acme.run("key", "create", "kr", "--org", "acme") == 1
    assert "there is no organisation 'acme'" in acme.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("org", "create", "ee", "acme"), 1, "exists already"),
        (("org", "create", "ee", "Not An Id"), 2, "cannot name an organisation"),
        (("org", "create", "ee", "other", "--plan", "gold"), 2, "--plan"),
        (("org", "create", "ee", "other", "--model", "smollm2"), 1, "has no model 'smollm2'"),
        (("org", "create", "EE", "other"), 1, "did you mean 'ee'?"),
        (("org", "list", "../ee"), 1, "no country '../ee'"),
        (("key", "create", "ee"), 2, "--org"),
        (("key", "create", "ee", "--org", "none"), 1, "there is no organisation 'none'"),
        (("key", "create", "ee", "--org", "acme", "--expires-in", "soon"), 2, "not a duration"),
        (("key", "create", "ee", "--org", "acme", "--expires-in", "0d"), 2, "opens nothing"),
        (("key", "list", "ee", "--org", "none"), 1, "there is no organisation 'none'"),
        (("key", "revoke", "ee", "none"), 1, "there is no key 'none'"),
        (("key", "rotate", "ee", "none"), 1, "there is no key 'none'"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr(
    acme: Terminal, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert acme.run(*arguments) == code
    assert message in acme.stderr
    assert acme.stdout == ""


def test_a_loose_pepper_is_an_error_and_no_traceback(acme: Terminal) -> None:
    assert acme.run("key", "create", "ee", "--org", "acme") == 0
    (acme.home / "countries" / "ee" / "pepper").chmod(0o644)
    assert acme.run("key", "create", "ee", "--org", "acme") == 1
    assert "chmod 600" in acme.stderr
