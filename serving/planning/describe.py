"""A plan as a JSON document, whose shape scripts may rely on."""

from __future__ import annotations

from dataclasses import asdict

from serving.planning.nouns import How, Plan


def document(plan: Plan) -> dict[str, object]:
    """``{"refused", "changes", "countries", "refusals"}``.

    ``changes`` says whether something would be done. Each of ``countries`` has ``country``, ``name``, ``address``,
    ``isolation``, ``action``, ``policy_digest``, ``former_digest``, ``changes`` (``path``, ``before``, ``after``),
    ``steps`` (``deployment``, ``how``, ``before``, ``after``, ``streams``, ``service``) and ``drift`` (``kind``,
    ``what``); each of ``refusals`` has ``country``, ``location``, ``rule``, ``reason`` and ``remedy``.
    """
    return {
        "refused": plan.refused,
        "changes": not plan.empty,
        "countries": [
            {
                "country": one.country,
                "name": one.name,
                "address": one.address,
                "isolation": one.isolation,
                "action": one.action.value,
                "policy_digest": one.digest,
                "former_digest": one.former,
                "changes": [asdict(each) for each in one.changes],
                "steps": [
                    {
                        "deployment": step.deployment,
                        "how": step.how.value,
                        "before": step.before,
                        "after": step.after,
                        "streams": "kept",
                        "service": "pauses" if step.how in (How.PAUSE, How.END) else "goes on",
                    }
                    for step in one.steps
                ],
                "drift": [asdict(each) for each in one.drift],
            }
            for one in plan.countries
        ],
        "refusals": [asdict(each) for each in plan.refusals],
    }
