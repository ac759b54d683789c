"""Whether a run can be judged at all: what would make its figures the load generator's instead of the service's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests import words
from loadtests.judging.evidence import Evidence
from loadtests.judging.statistics import proportion
from loadtests.record import Sample

LAG_S = 0.010
LAG_SHARE = 0.05
"""Of the promised first token: what counts as a late request, where that is more than ``LAG_S``."""
LATE_MOST = 0.01
"""Share of the requests that may be sent late; more than that has to be beyond chance."""
BUSY_CORES = 0.95
"""One thread sends; at this many cores it has no time left to be in time."""
BUSY_MOST = 0.05
"""Share of the samples that may show a busy generator."""
BEHIND_MOST_S = 5.0
"""For how long on end requests may be overdue and unsent."""
_GENERATOR = "generator"


def reasons(evidence: Evidence) -> tuple[str, ...]:
    """Why there can be no verdict, in sentences; empty where nothing is in its way."""
    return (*_interrupted(evidence), *_silent(evidence), *_late(evidence), *_busy(evidence), *_behind(evidence))


def _interrupted(evidence: Evidence) -> Iterator[str]:
    if evidence.interruption is not None:
        event = evidence.interruption
        yield f"The run was interrupted after {words.seconds(event.at)}: {event.what or 'nobody says why'}."


def _silent(evidence: Evidence) -> Iterator[str]:
    if not evidence.records:
        yield "No request was sent."
        return
    for code in evidence.scenario.countries:
        own = [one for one in evidence.records if one.country == code]
        if own and all(one.status == 0 for one in own):
            yield f"The endpoint of {code} never answered: {words.named(len(own), 'request')} went unheard."


def _late(evidence: Evidence) -> Iterator[str]:
    """Only of judged requests that were answered: a service that takes no connection makes requests late itself.

    Two late ones of a hundred are no generator that cannot keep up, and what they waited is in their times already,
    which count from when they were to be sent.
    """
    asked = sorted((one for one in evidence.judged if one.status), key=lambda one: one.intended)
    late = [
        one.lag_s > max(LAG_S, LAG_SHARE * evidence.promise(one.country, one.service_class).first_token_s)
        for one in asked
    ]
    if asked and proportion(late).interval().low > LATE_MOST:
        worst = max(one.lag_s for one in asked)
        yield (
            f"The load generator was the bottleneck: it sent {words.share(sum(late) / len(late))} of the requests "
            f"late, by up to {words.seconds(worst)}; at most {words.share(LATE_MOST)} may be. "
            "Give it a core of its own, or more workers."
        )


def _busy(evidence: Evidence) -> Iterator[str]:
    cores = [one.values["cpu"] for one in _generator(evidence) if "cpu" in one.values]
    busy = sum(one >= BUSY_CORES for one in cores)
    if busy > BUSY_MOST * len(cores):
        yield (
            f"The load generator was the bottleneck: it used a whole core in {words.share(busy / len(cores))} of the "
            f"samples; at most {words.share(BUSY_MOST)} may be such. Give it more workers."
        )


def _behind(evidence: Evidence) -> Iterator[str]:
    # By the second, as several workers write one sample each in it.
    worst: dict[int, float] = {}
    for one in _generator(evidence):
        worst[int(one.at)] = max(worst.get(int(one.at), 0.0), one.values.get("behind", 0.0))
    since: int | None = None
    longest = 0
    for second, behind in worst.items():
        since = None if behind <= 0 else second if since is None else since
        longest = longest if since is None else max(longest, second - since)
    if longest > BEHIND_MOST_S:
        yield (
            f"The load generator was the bottleneck: for {words.seconds(longest)} on end it had requests overdue and "
            f"unsent; {words.seconds(BEHIND_MOST_S)} are tolerated."
        )


def _generator(evidence: Evidence) -> Sequence[Sample]:
    """The generator's samples from judged phases: where nothing is judged, nothing is spoilt either."""
    spans = [
        (float(one["begin"]), float(one["end"])) for one in evidence.phases if one["name"] in evidence.judged_phases
    ]
    return [
        one
        for one in sorted(evidence.run.samples, key=lambda one: one.at)
        if one.source.startswith(_GENERATOR) and any(begin <= one.at <= end for begin, end in spans)
    ]
