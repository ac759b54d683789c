"""What an actor of ours does where it stands, as far as it depends on names of Ray's that are not public."""

from __future__ import annotations

import inspect

import pytest
from ray.serve._private import replica

from serving.replicas import ground


def test_serve_opens_its_own_listener_by_the_name_that_we_stand_in_for() -> None:
    opened = inspect.getsource(replica.Replica._on_initialized)
    assert "add_port_to_grpc_server(self._server," in opened


def test_that_listener_is_at_the_node_s_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda _server, address: asked.append(address))
    monkeypatch.setattr(ground, "address", lambda: "10.20.0.2")
    ground._listen_at_home()
    replica.add_port_to_grpc_server(None, "[::]:0")
    assert asked == ["10.20.0.2:0"]
