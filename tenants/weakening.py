"""Keys that no tenant file has, and that somebody might write to weaken a rule: why each is refused.

The strict schema refuses every key that it does not describe. What is here makes the refusal say which rule it is about
rather than only that the key is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tenants.arguments import REFUSED
from tenants.floor import THE_FLOOR
from tenants.rules import FLOOR, Weakens


@dataclass(frozen=True, slots=True)
class _Kind:
    rule: str
    reason: str
    remedy: str
    names: re.Pattern[str]


def _kind(rule: str, names: str, reason: str, remedy: str) -> _Kind:
    """``names`` are whole words of a key, one or several joined by ``_``."""
    return _Kind(rule, reason, remedy, re.compile(rf"(?:^|_)(?:{'|'.join(names.split())})(?:_|$)"))


_OUT = "take it out"

# The first that fits decides: what is told apart by one word more stands above what it is told apart from.
_KINDS = (
    _kind(
        "R11",
        "skip_plan ignore_refusals allow_weakening force unsafe insecure",
        "nothing in a tenant file switches a rule off",
        _OUT,
    ),
    _kind(
        "R8",
        "remote_code plugin plugins custom_code entrypoint python",
        "it runs code that did not come with this release, and such code could undo every rule",
        "use a model that the pinned vLLM knows by itself",
    ),
    _kind(
        "R7",
        "log_prompts? log_requests? log_outputs? log_bod(?:y|ies) log_content log_answers? log_level log_config"
        " prompt_logs? content_logging request_logging capture capture_content content_capture"
        " (?:save|store|keep|dump|record|trace)_(?:prompts?|answers?|outputs?|content|requests?|messages) debug dumps?",
        "it would write what was asked or answered somewhere",
        "take it out: counts, times and outcomes are in the country's metrics and audit log",
    ),
    _kind(
        "R5",
        "spillover spill overflow failover backup backups standby serve_elsewhere on_outage",
        "a country that is down answers 503, and nobody else serves its callers",
        "take it out, and give the country more replicas on its own nodes",
    ),
    _kind(
        "R2",
        "fallback fallbacks soft label_selector node_labels? labels? affinity node_affinity placement tolerations?"
        " scheduling_strategy nodes? node_selector",
        "replicas and gateways run on nodes with the country's label, and nowhere else",
        "take it out: the label is domicile/country, and follows from the country's code",
    ),
    _kind(
        "R9",
        "salt cache_salt prefix_sharing share_prefix(?:es)? shared_prefix(?:es)? share_cache shared_cache"
        " cache_sharing",
        "one organisation could find out another's prompts by how fast an answer begins",
        "take it out: the salt is derived from the organisation by itself",
    ),
    _kind(FLOOR, "safety moderation", THE_FLOOR["safety"], _OUT),
    _kind(FLOOR, "retention retain retain_days keep_days expire_records", THE_FLOOR["retention"], _OUT),
    _kind("R10", "audit audit_log audits", f"{THE_FLOOR['audit']}; it is always on", _OUT),
    _kind("R10", "receipts? signing signing_key sign", f"{THE_FLOOR['receipts']}; they are always given", _OUT),
    _kind(
        "R4",
        "claims? cell_key claim_key verify_claims require_claims? trusted_proxies trust_proxy",
        "a replica serves nobody without a claim that its own country's gateway has signed",
        "take it out: the key of claims is made on the country's own ground",
    ),
    _kind(
        "R3",
        "skip_residency residency_check check_residency read_body read_body_first",
        "a request at the wrong country is refused from its headers, before its body is read",
        _OUT,
    ),
    _kind(
        "R1",
        "accept_keys_of accept_foreign_keys accept_keys serves also_serves share_with shared_with countries aliases_of",
        "a country's keys open that country and no other",
        "describe the other country in a folder of its own",
    ),
    _kind(
        "R6",
        "director(?:y|ies) home store stores database databases dsn bucket object_store journal records_path log_path"
        " cache_dir(?:ectory)? log_endpoint sentry exporters? collectors? otlp webhooks? kv_connector kv_transfer",
        "what a request leaves behind stays in the country's own folder and goes to nobody else",
        "take it out: DOMICILE_HOME is where the countries' folders are, one each",
    ),
    _kind(
        "R8",
        "usage_stats usage_reports? usage_reporting phone_home analytics http_proxy https_proxy proxy hf_token"
        " hub_token hf_endpoint online allow_internet allow_egress egress",
        "nothing of the country's talks to anybody abroad",
        "take it out; models come by residency.allow_hub or, better, by source.path",
    ),
)  # fmt: skip


def weakens(key: str) -> Weakens | None:
    """Why a key that is not in the schema is refused, where it is more than a slip."""
    name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
    return next(_found(name), None)


def _found(name: str) -> Iterator[Weakens]:
    if (refusal := REFUSED.get(name)) is not None and refusal.rule is not None:
        yield Weakens(refusal.rule, refusal.reason, _OUT)
    for kind in _KINDS:
        if kind.names.search(name):
            yield Weakens(kind.rule, kind.reason, kind.remedy)
