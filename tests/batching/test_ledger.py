"""Who was served how much, and who is owed what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.batching.jobs import Account
from serving.batching.ledger import Ledger, virtual_tokens

A, B, C, D = ACCOUNTS = [Account(name) for name in "abcd"]


def there(*accounts: Account) -> Ledger:
    ledger = Ledger(credit=0)
    for account in accounts:
        ledger.enter(account)
    return ledger


def test_a_token_counts_for_less_the_larger_the_share_and_an_answer_s_for_more() -> None:
    assert virtual_tokens(100, 10, share=1.0) == 100 + 2 * 10
    assert virtual_tokens(100, 10, share=4.0) == virtual_tokens(100, 10, share=1.0) / 4


def test_who_comes_back_is_lifted_to_the_least_of_those_who_wait() -> None:
    idle, busy, busier = A, B, C
    ledger = there(idle, busy, busier)
    ledger.leave(idle)
    ledger.charge(busy, 500)
    ledger.charge(busier, 900)
    ledger.enter(idle)
    assert ledger.counter(idle) == 500


def test_who_comes_back_has_a_little_of_what_it_did_not_use_and_goes_first_for_so_long() -> None:
    modest, greedy = A, B
    ledger = Ledger(credit=100)
    for account in (modest, greedy):
        ledger.enter(account)
    ledger.leave(modest)
    ledger.charge(greedy, 5000)
    ledger.enter(greedy)
    assert ledger.lead(modest) == -100
    ledger.enter(modest)
    assert ledger.lead(modest) == -100
    ledger.charge(modest, 99)
    assert ledger.leading(0, 8) == [modest]
    ledger.charge(modest, 2)
    assert ledger.leading(0, 8) == [greedy]


def test_who_was_served_long_ago_leads_nobody_who_was_served_since() -> None:
    modest, greedy = A, B
    ledger = there(modest, greedy)
    ledger.charge(modest, 900)
    ledger.leave(modest)
    assert ledger.lead(modest) == 900
    ledger.charge(greedy, 5000)
    assert ledger.lead(modest) == 0, "and nobody had to come for it"


def test_who_was_never_here_is_taken_for_one_who_was_idle_for_long() -> None:
    ledger = Ledger(credit=100)
    ledger.enter(A)
    ledger.charge(A, 500)
    ledger.enter(A)
    assert ledger.lead(B) == -100
    assert ledger.lead(A) == 0


def test_nobody_is_ever_lowered_by_coming_back() -> None:
    greedy, modest = A, B
    ledger = there(greedy, modest)
    ledger.charge(greedy, 900)
    ledger.leave(greedy)
    ledger.enter(greedy)
    assert ledger.counter(greedy) == 900


def test_after_a_pause_of_everybody_newcomers_stand_where_the_last_one_stopped() -> None:
    ledger = there(A)
    ledger.charge(A, 700)
    ledger.leave(A)
    ledger.enter(B)
    assert ledger.counter(B) == 700


def test_one_stream_kept_alive_earns_no_credit() -> None:
    trickle, steady = A, B
    ledger = there(trickle, steady)
    ledger.begin(trickle, 10)
    ledger.leave(trickle)  # runs on, with nothing waiting
    ledger.charge(trickle, 10, kept=10)
    ledger.charge(steady, 100_000)
    ledger.enter(trickle)
    assert ledger.counter(trickle) == ledger.counter(steady)


def test_a_pledge_stands_in_line_before_it_is_charged_and_is_given_back() -> None:
    ledger = there(A, B)
    ledger.begin(A, 200)
    assert ledger.leading(0, 8) == [B]
    ledger.charge(A, 100, kept=100)
    assert ledger.standing(A) == 200
    ledger.end(A, 100)
    assert ledger.standing(A) == ledger.counter(A) == 100
    ledger.charge(B, 101)
    assert ledger.leading(0, 8) == [A]


def test_of_two_jobs_that_run_one_may_end_and_the_other_s_pledge_stands() -> None:
    ledger = there(A)
    ledger.begin(A, 200)
    ledger.begin(A, 50)
    ledger.end(A, 200)
    assert ledger.standing(A) == 50


def test_rounding_leaves_nothing_pledged_when_nothing_runs() -> None:
    ledger = there(A)
    for _ in range(3):
        ledger.begin(A, 0.1)
    for _ in range(3):
        ledger.end(A, 0.1)
    assert ledger.standing(A) == ledger.counter(A)


def test_only_those_near_the_least_are_candidates_and_so_many_at_most() -> None:
    ledger = there(*ACCOUNTS)
    for index, account in enumerate(ACCOUNTS):
        ledger.charge(account, 100 * index)
    assert ledger.leading(200, 8) == [A, B, C]
    assert ledger.leading(200, 2) == [A, B]
    assert ledger.leading(100, 8, without={A}) == [B, C]
    assert ledger.leading(1000, 8, without=ACCOUNTS) == []


def test_those_who_were_served_meanwhile_are_looked_at_in_their_new_place() -> None:
    ledger = there(*ACCOUNTS)
    for account, tokens in ((A, 30), (B, 10), (C, 20), (D, 5)):
        ledger.charge(account, tokens)
    assert ledger.leading(10, 2) == [D, B]
    assert ledger.leading(1000, 8) == [D, B, C, A]


def test_the_idle_are_forgotten_when_others_have_caught_up_and_not_before() -> None:
    steady = A
    guests = [Account(f"guest{index}") for index in range(100)]
    ledger = there(steady, *guests)
    for guest in guests:
        ledger.charge(guest, 50)
        ledger.leave(guest)
    ledger.charge(steady, 49)
    ledger.enter(steady)
    assert len(ledger) == 101
    ledger.charge(steady, 1)
    ledger.enter(steady)
    assert len(ledger) == 1


def test_what_is_charged_to_somebody_with_nothing_waiting_is_remembered() -> None:
    ledger = there(A)
    ledger.charge(A, 100)
    ledger.leave(A)
    ledger.charge(B, 30)
    ledger.enter(C)
    assert ledger.counter(B) == ledger.counter(C) + 30


def test_things_are_ordered_by_their_account_and_stay_as_they_came_within_it() -> None:
    ledger = there(A, B)
    ledger.charge(A, 1)
    things = [(A, 1), (B, 1), (A, 2), (B, 2)]
    assert ledger.order(things, lambda thing: thing[0]) == [(B, 1), (B, 2), (A, 1), (A, 2)]


moves = st.tuples(st.sampled_from(["enter", "leave", "charge"]), st.sampled_from(ACCOUNTS), st.integers(0, 99))


@given(st.lists(moves))
def test_counters_never_fall_and_the_least_who_waits_leads(steps: list[tuple[str, Account, int]]) -> None:
    ledger = Ledger()
    waiting = dict.fromkeys(ACCOUNTS, 0)
    for move, account, tokens in steps:
        before = {each: ledger.counter(each) for each in ACCOUNTS}
        if move == "enter":
            ledger.enter(account)
            waiting[account] += 1
        elif move == "leave":
            ledger.leave(account)
            waiting[account] = max(0, waiting[account] - 1)
        else:
            ledger.charge(account, tokens)
        assert all(ledger.counter(each) >= before[each] for each in ACCOUNTS)
        leading = ledger.leading(1e9, 8)
        assert sorted(leading) == [each for each in ACCOUNTS if waiting[each]]
        assert leading == sorted(leading, key=ledger.standing)
