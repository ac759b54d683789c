"""Where what runs is not what was last made so. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.planning.nouns import Applied, Drift, Observed, Running

HEALTHY = "running"
PASSING = ("starting", "ending")
"""Phases that end by themselves."""
GONE = ("absent", "failed")
"""Phases that do not end until somebody does something."""


def drift(code: str, digest: str | None, observed: Observed) -> Iterator[Drift]:
    """What is not as it was made so in one country that was.

    Args:
        digest: names the file as it is now; ``None`` when there is none.
    """
    if not observed.answers:
        yield Drift("unknown", "the cluster does not answer: nothing is known of what runs")
        return
    applied, running = observed.applied[code], observed.running.get(code, Running())
    if digest is None:
        yield Drift("edited", "its tenant.yaml is gone, and it runs")
    elif applied is None:
        yield Drift("unknown", "nothing says from which file it was made: all of it is made anew")
    elif applied.digest != digest:
        yield Drift("edited", "its tenant.yaml was edited since it was applied")
    if not any(node.country == code for node in observed.nodes):
        yield Drift("node", "no node carries its label, so nothing of it can run")
    if running.phase != HEALTHY:
        yield Drift("application", ": ".join(filter(None, (f"is {running.phase}", running.message))))
    if applied is not None and running.phase not in ("absent", "ending"):
        yield from _replicas(applied, running)


def strays(observed: Observed) -> Iterator[Drift]:
    """What runs in the cluster and belongs to no country that was made to."""
    for node in observed.nodes:
        if node.country and node.country not in observed.applied:
            yield Drift("label", f"node {node.id} is labelled {node.country}, which was not made to run")
    for code, running in sorted(observed.running.items()):
        if code not in observed.applied and running.phase != "absent":
            yield Drift("application", f"an application of {code} runs that nobody here made so")


def _replicas(applied: Applied, running: Running) -> Iterator[Drift]:
    for name, part in sorted(applied.parts.items()):
        run = running.replicas.get(name, 0)
        if run != part.replicas:
            yield Drift("replicas", f"{name}: {run} of {part.replicas} replicas run")
        elif running.processes is not None and (lives := running.processes.get(name, 0)) < run:
            yield Drift("processes", f"{name}: {lives} of {run} processes live; Ray Serve replaces the dead")
    for name in sorted(running.replicas.keys() - applied.parts.keys()):
        if running.replicas[name]:
            yield Drift("replicas", f"{name}: runs, and the file that was applied does not have it")
