"""``ray``, taking loopback at its word: ``python -m serving.cli.loopback_ray start …``.

Asked to be at 127.0.0.1, Ray looks for an address that other machines can reach, takes that, and then every process
of it listens on every interface. A cluster of one machine is nobody else's to reach. Ray has a switch for that, which
:data:`serving.cli.cluster.LOOPBACK_ONLY` sets for all that joins; with it on, though, ``ray start`` adds no node.

It also starts no dashboard. Where none is wanted, Ray starts one all the same, with a single module: the one that
asks the cloud where it is, and then tells Ray's makers that their users do not wish to tell them anything (R8).
"""

from __future__ import annotations

from ray._private import services
from ray.scripts.scripts import main


def _as_asked(host: str) -> str:
    return host


def _no_dashboard(*_: object, **__: object) -> tuple[None, None]:
    """What Ray takes for a dashboard that did not start, which it can do without."""
    return None, None


if __name__ == "__main__":
    services.resolve_ip_for_localhost = _as_asked
    services.start_api_server = _no_dashboard
    main()
