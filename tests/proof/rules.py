"""The closed map: each rule of residency, what it guarantees in plain words, and the tests that prove it.

``python -m tests.proof`` runs what is named here and tells the outcome in these words. That nothing named is missing,
and that no rule is without a proof, is itself a test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proof:
    """One way in which a guarantee is tried."""

    what: str
    """What is done, and what has to be seen. For a reader who knows no code."""
    tests: tuple[str, ...]
    """``file`` or ``file::test``, from the repository's root."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One promise of residency."""

    code: str
    title: str
    guarantee: str
    proofs: tuple[Proof, ...]
    beyond: str
    """What the tests do not show."""


APART = "tests/residency/test_cells_1_apart.py"
OVERHEARD = "tests/residency/test_cells_2_overheard.py"
TEXT = "tests/residency/test_cells_3_text.py"
KILLED = "tests/residency/test_cells_4_killed.py"
END = "tests/residency/test_cells_5_end.py"
JOURNEY = (APART, OVERHEARD, TEXT, KILLED, END)
REQUESTS = "tests/residency/test_requests.py"
ACTORS = "tests/residency/test_actors.py"
CELLS = "tests/residency/test_r2_cells.py"
EGRESS = "tests/residency/test_r8_egress.py"
TELEMETRY = "tests/residency/test_r7_telemetry.py"

RULES = (
    Rule(
        "R1",
        "A key names its country",
        "Whoever calls has a key of exactly one country. Only that country's gateway and that country's models ever "
        "see the request; every other country refuses it, whatever the request says of itself.",
        (
            Proof(
                "Callers on a network of their own asked two countries, each by its own key. Every answer had to come "
                "from the key's country, and the other country's engine had to have done no work meanwhile, by its "
                "own counters.",
                (f"{APART}::test_r1_callers_are_served_by_the_country_of_their_key",),
            ),
            Proof(
                "The callers tried to connect to every private port that a country's processes listen on. Nothing but "
                "the gateway may be reached from outside.",
                (f"{APART}::test_r1_nothing_of_a_country_but_its_gateway_can_be_reached",),
            ),
            Proof(
                "Every packet on each country's only link was recorded, from before the country started until after "
                "it had ended, through service, attacks, kills and restarts. No packet may have an address at either "
                "end but the country's own and its callers'. At the end one packet was sent abroad on purpose, to see "
                "that the recorder would have seen it.",
                (
                    f"{END}::test_r1_no_packet_went_abroad_or_came_from_there",
                    f"{END}::test_r1_and_one_that_does_would_be_seen_and_not_arrive",
                ),
            ),
            Proof(
                "Every kind of request was sent with another country's key; a list of models that named a foreign one "
                "was put before the gateway; unknown, revoked, expired, foreign and forged keys had to be told apart "
                "by nobody.",
                (
                    f"{REQUESTS}::test_r1_only_the_key_s_country_sees_a_request",
                    f"{REQUESTS}::test_r1_a_foreign_replica_in_the_table_is_not_chosen",
                    f"{REQUESTS}::test_r1_nor_would_it_serve_if_it_were",
                    "tests/test_placement.py::test_no_state_of_the_world_lets_a_foreign_replica_be_chosen",
                    "tests/tenants/test_keyring.py::test_r1_unknown_revoked_expired_foreign_and_forged_keys_look_alike",
                    "tests/tenants/test_keyring.py::test_r1_a_keyring_reads_no_other_country",
                    "tests/hostile/test_table_who.py::test_row_09_forged_headers_change_nothing",
                    "tests/hostile/test_table_who.py::test_row_09_and_reach_no_replica",
                ),
            ),
        ),
        "Where a machine really stands. A country's label is put on a machine by whoever runs it; that it stands on "
        "the country's soil is for contracts and inspections to show. Nor what a caller does with an answer once it "
        "has it.",
    ),
    Rule(
        "R2",
        "Placement is hard",
        "A country's work runs on machines that carry the country's label, or not at all. There is no second choice.",
        (
            Proof(
                "The only machine with a country's label was killed while the country served. The country had to go "
                "down and stay down until a machine with its label was back, though other processes of its cluster "
                "lived on.",
                (f"{KILLED}::test_r2_a_country_without_a_node_is_not_served_until_it_has_one_again",),
            ),
            Proof(
                "For every country and every kind of model, the orders given to the scheduler were read: each must "
                "demand the country's label, and none may hold a softer alternative.",
                (
                    f"{ACTORS}::test_r2_every_actor_carries_its_country_s_hard_label",
                    f"{ACTORS}::test_r2_and_so_does_every_deployment_of_an_application",
                    f"{ACTORS}::test_r2_no_source_softens_it",
                    f"{ACTORS}::test_r2_reading_the_composition_root_starts_nothing",
                ),
            ),
            Proof(
                "A machine with another country's label was put into a country's cluster. The country has to stop "
                "serving, and to name it; two countries of which one wants to be alone may not come up together at "
                "all.",
                (CELLS,),
            ),
        ),
        "That a label is true: see R1.",
    ),
    Rule(
        "R3",
        "Refused unread",
        "A request that comes to the wrong country is refused from its headers alone. Its text is not read there, not "
        "even to refuse it.",
        (
            Proof(
                "A caller announced a text of four megabytes at the wrong country and sent none of it. The refusal "
                "had to come nonetheless, and to name the right address.",
                (f"{APART}::test_r3_a_key_at_the_wrong_country_is_refused_before_its_body_is_sent",),
            ),
            Proof(
                "The same for every kind of request, also where headers name another country or another organisation.",
                (
                    f"{REQUESTS}::test_r3_a_request_at_the_wrong_country_is_refused_unread",
                    "tests/hostile/test_table_who.py::test_row_03_is_decided_before_the_body_is_read",
                    "tests/hostile/test_table_who.py::test_row_04_key_on_another_country_s_address",
                    "tests/hostile/test_table_who.py::test_row_05_header_names_another_tenant",
                    "tests/hostile/test_table_who.py::test_row_05_a_second_header_hides_nothing",
                ),
            ),
        ),
        "A caller who sends the text all the same has sent it: the network and the kernel of the wrong country's "
        "machine carry it until the connection is closed, though no program of ours reads it.",
    ),
    Rule(
        "R4",
        "No model without a claim",
        "A model's process answers only to a request that its own country's gateway has vouched for, by a signature "
        "that is good once and for seconds. Who goes past the gateway is refused.",
        (
            Proof(
                "From inside a country, its model's private port was asked directly, past the gateway: without a "
                "claim, and with ones that were forged, foreign, altered, expired, from the future or meant for "
                "something else. Each had to be refused, and the engine had to have done no work.",
                (f"{APART}::test_r4_a_replica_refuses_whoever_goes_past_the_gateway",),
            ),
            Proof(
                "A genuine claim was read off the wire while the gateway used it, and sent again, at home and in the "
                "other country.",
                (f"{APART}::test_r4_a_claim_taken_off_the_wire_is_good_for_nothing",),
            ),
            Proof(
                "Claims were altered in every single character, used in every order, and pressed on every path of a "
                "model's process.",
                ("tests/residency/test_r4_claims.py", "tests/replicas/test_claim.py"),
            ),
        ),
        "What somebody could do who has the country's cell key: that is a file which only its owner may read, on the "
        "country's machines.",
    ),
    Rule(
        "R5",
        "Fail closed",
        "When a country is down, its callers are told so. Nobody else answers for it, and nobody else notices.",
        (
            Proof(
                "Every model process of a country was killed in the middle of an answer. While it was down, its "
                "callers had to get error 503 from the country itself; the other country had to refuse them still, "
                "and its own processes and counters had to be as before. Then the country had to come back by itself.",
                (f"{KILLED}::test_r5_a_country_without_replicas_answers_503_and_the_other_does_not_notice",),
            ),
            Proof(
                "A country's gateway was killed, and had to come back for its own callers.",
                (f"{KILLED}::test_r5_a_gateway_that_is_killed_comes_back_for_its_own_callers",),
            ),
            Proof(
                "Every kind of request was sent to a country that was gone, draining, unknown to its gateway or "
                "overloaded.",
                (
                    f"{REQUESTS}::test_r5_a_country_that_is_down_is_down",
                    f"{REQUESTS}::test_r5_what_went_on_abroad_before_does_not_matter",
                    "tests/journeys/test_fake_failures.py::test_with_all_replicas_gone_nobody_else_answers",
                    f"{CELLS}::test_r5_a_cell_with_a_stranger_refuses_and_names_it",
                ),
            ),
        ),
        "Faults below the programs: a network that delivers packets wrongly, a machine that computes wrongly.",
    ),
    Rule(
        "R6",
        "Records stay home",
        "What a country keeps is kept in its own place, with its own keys, and nobody else's is there: accounts, "
        "audit log, receipts, logs, measurements, caches.",
        (
            Proof(
                "Every process of each country was looked at while it served: open files, sockets, environment and "
                "command line. None may hold anything of the other country.",
                (f"{APART}::test_r6_no_process_of_a_country_holds_anything_of_the_other",),
            ),
            Proof(
                "Stores of one country were opened in the name of another, which has to be refused. What one country "
                "answered and refused had to leave nothing with the other.",
                (
                    "tests/residency/test_r6_records.py",
                    f"{TELEMETRY}::test_r6_a_country_s_telemetry_goes_to_its_own_collector_only",
                    "tests/tenants/test_registry.py::test_r6_two_countries_never_share_a_collector_nor_the_ports_of_their_metrics",
                    "tests/tenants/test_ground.py::test_r6_a_ground_opens_no_other_country_s_store",
                    "tests/records/test_receipt_store.py::test_r6_a_file_has_one_country",
                ),
            ),
        ),
        "Backups and copies that operators make by other means.",
    ),
    Rule(
        "R7",
        "No text is left behind",
        "No prompt and no answer is written down: in no log, measurement, trace, error message, record or memory dump.",
        (
            Proof(
                "A word that exists nowhere else was sent in every part of a request that a caller controls, and the "
                "model was made to answer with it; errors were provoked with it at every stage. Afterwards every file "
                "that had changed on the machine, all figures, traces and logs that operators see, and every "
                "process's environment and command line were searched for it, in plain and in thirteen encodings. "
                "Copies that were planted on purpose had to be found.",
                (
                    TEXT,
                    f"{END}::test_r7_a_word_that_was_asked_and_answered_is_in_no_artefact",
                    f"{END}::test_r7_a_process_that_crashes_leaves_no_dump",
                    f"{END}::test_r7_and_when_all_has_ended_nothing_is_left_either",
                ),
            ),
            Proof(
                "The word was sent to countries whose traces, figures and logs were received on the other side, all "
                "of them, and read there.",
                (f"{TELEMETRY}::test_r7_no_word_of_a_caller_is_in_a_span_a_metric_or_a_log",),
            ),
            Proof(
                "Records were offered text, which they have to refuse; errors that quote a prompt had to be told "
                "without it.",
                (
                    "tests/records/test_record.py::test_r7_text_has_no_place_in_a_record",
                    "tests/records/test_record.py::test_r7_no_text_with_a_space_has",
                    "tests/records/test_receipts.py::test_r7_an_answer_that_is_noted_with_text_is_refused",
                    "tests/contract/test_engine.py::test_r7_the_metrics_repeat_nothing_of_a_caller",
                    "tests/gateway/test_problems.py::test_nothing_of_a_foreign_exception_is_told",
                ),
            ),
        ),
        "Memory. While a request is served, its text is in the memory of the country's processes, and may stay there "
        "in the prefix cache until it is needed for something else; who controls the machine can read it. Swapped-out "
        "memory was not searched. Between caller and gateway the text is as safe as the connection: this run used "
        "plain HTTP on a network of its own, and the recordings of packets keep headers only.",
    ),
    Rule(
        "R8",
        "Nothing phones home",
        "The programs that Domicile is made of report to nobody: usage statistics are off and model hubs are not "
        "asked.",
        (
            Proof(
                "The recording of every packet (see R1) covers start-up, service and end. Each country had a way out "
                "of its network, on which any attempt to reach somebody would have been seen: a report, a look-up of "
                "a name, a download.",
                (f"{END}::test_r1_no_packet_went_abroad_or_came_from_there",),
            ),
            Proof(
                "The switches that silence vLLM, Ray and the model hub were read from the running processes, and from "
                "the orders for every country and every kind of model.",
                (
                    f"{APART}::test_r8_every_process_is_told_to_be_silent",
                    f"{ACTORS}::test_r8_every_actor_is_silent",
                    f"{ACTORS}::test_r8_every_deployment_of_an_application_too",
                    f"{ACTORS}::test_r8_a_tenant_that_allows_the_hub_differs_in_the_hub_s_switches_only",
                    "tests/tenants/test_country.py::test_r8_a_hub_needs_the_country_s_leave",
                ),
            ),
            Proof(
                "The rules that deny a country's machines every other address were loaded into a kernel, and packets "
                "sent to addresses at home and abroad. Those for Kubernetes were held against its own description of "
                "such rules.",
                (EGRESS,),
            ),
        ),
        "What a program would do on another day than this one. That is why the network itself has to deny it, by the "
        "rules that were tried here; whether they are in force where a country runs is for its operators to see to.",
    ),
    Rule(
        "R9",
        "Organisations cannot overhear each other",
        "What one organisation asked leaves no trace that another could notice, not even by how fast its own answer "
        "comes.",
        (
            Proof(
                "Two organisations asked the same. The engine had to take nothing of the second's request from its "
                "cache, and something of the first's own second request.",
                (f"{OVERHEARD}::test_r9_the_same_prompt_is_new_to_another_organisation",),
            ),
            Proof(
                "One organisation timed its answers, to requests that another had made before and to fresh ones, in "
                "pairs, in an order drawn by lot. The times may not tell it which is which: a guesser has to stay "
                "near a coin's 50%. An organisation's own repeated requests were timed beside them, where the guesser "
                "has to be right nearly always, or the test would be blind.",
                (f"{OVERHEARD}::test_r9_times_do_not_tell_what_somebody_else_has_asked",),
            ),
            Proof(
                "The salt that separates the caches is derived from the organisation that was authenticated; nothing "
                "that a client writes may change it.",
                (
                    f"{REQUESTS}::test_r9_organisations_do_not_share_a_prefix_cache",
                    f"{REQUESTS}::test_r9_the_salt_is_the_organisation_s_and_nothing_the_client_says_changes_it",
                    f"{REQUESTS}::test_r9_salts_differ_between_organisations_and_between_countries",
                    "tests/contract/test_engine.py::test_r9_the_prefix_cache_is_kept_apart_between_organisations",
                    "tests/replicas/test_claim.py::test_salts_are_hex_and_fit_vllm",
                ),
            ),
        ),
        "That others are there: how busy a machine is can be felt by everybody who shares it. Nor channels below the "
        "programs, in processors and memory.",
    ),
    Rule(
        "R10",
        "Every answer has a receipt",
        "Each answer comes with a signed receipt, which a stranger can verify with the country's public key alone, "
        "and stands in a log in which any change shows.",
        (
            Proof(
                "Strangers, on a network of their own and without any file of the country's, fetched receipts of "
                "answers that they had been given, and the country's public keys, and verified them.",
                (f"{APART}::test_r10_a_stranger_verifies_an_answer_s_receipt",),
            ),
            Proof(
                "After all kills, crashes and restarts the country's log was exported, and a stranger verified it "
                "from the first record to the last, with the receipts it held as witnesses.",
                (f"{END}::test_r10_the_log_is_whole_and_the_receipts_are_its_witnesses",),
            ),
            Proof(
                "Where nothing could be recorded, nothing was served. Receipts of other organisations and other "
                "countries could not be had.",
                (
                    "tests/journeys/test_fake_records.py::test_where_nothing_can_be_recorded_nothing_is_served_and_nothing_is_lost",
                    "tests/residency/test_r10_receipts.py",
                    "tests/hostile/test_receipts.py",
                ),
            ),
            Proof(
                "Logs were falsified in every way: every single byte changed, records taken out, doubled, exchanged, "
                "put in, cut off. Each had to be found, and its place named.",
                ("tests/records/test_audit_verify.py", "tests/cli/test_audit.py"),
            ),
            Proof(
                "Receipts were forged in every way known for such signatures, and had to be refused; genuine ones had "
                "to hold after a change of keys.",
                ("tests/records/test_jws.py", "tests/records/test_receipts.py"),
            ),
            Proof(
                "Writers were killed at random moments, and disks filled: what had been recorded had to be there.",
                ("tests/records/test_audit_crash.py",),
            ),
        ),
        "What somebody could do who has the country's signing key: write another history. What strangers hold of the "
        "first, receipts and exports, would contradict it.",
    ),
    Rule(
        "R11",
        "Configuration cannot weaken this",
        "No setting of a country weakens what is promised here. What would is refused, with the reason, before "
        "anything starts.",
        (
            Proof(
                "Settings that would weaken the promises were written into a country's file, and arguments of the "
                "engine that nobody has judged. Each had to be refused, by name.",
                (
                    "tests/tenants/test_country.py::test_r11_arguments_that_weaken_the_promises_are_refused_with_a_reason",
                    "tests/tenants/test_country.py::test_r11_arguments_that_nobody_has_judged_are_refused",
                ),
            ),
            Proof(
                "Addresses abroad were named as the place where traces and figures go, in a country's file and in the "
                "environment, and networks that say nothing of where they are. Each had to be refused or to change "
                "nothing.",
                (
                    f"{TELEMETRY}::test_r11_a_collector_that_is_not_the_country_s_own_is_refused",
                    f"{TELEMETRY}::test_r11_the_environment_cannot_have_telemetry_sent_elsewhere",
                    "tests/tenants/test_networks.py",
                ),
            ),
            Proof(
                "Every way of weakening a promise that is known was written into the file of each country that is "
                "shipped, and everything that belongs to one country was given to two. The plan had to refuse each, "
                "and to name the rule.",
                ("tests/residency/test_r11_plan.py",),
            ),
        ),
        "A change of the programs themselves. The commit above says which ones were tested.",
    ),
)

BEYOND = (
    "An administrator with full rights over a country's machines (root) can read their memory, change the programs or "
    "take the keys. These tests show what the programs do, not what people with such rights could.",
    "Hardware, firmware, hypervisors and what can be overheard from them (side channels) were not tested.",
    "Tests are samples. They show that what was tried was refused; they cannot show that nothing else would work.",
    "The countries of this run stood on one machine, in network namespaces: apart as far as the network is concerned, "
    "and sharing its kernel, disk and processors. On machines of their own they share less.",
    "The model of this run is the small one that comes with the programs. Another model changes answers, not routes.",
)
