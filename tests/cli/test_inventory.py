from __future__ import annotations

import os

import psutil

from serving.cli.inventory import actors, family_memory, memory, titles

TITLES = {
    1: "/usr/bin/raylet",
    2: "ray::ServeReplica:domicile-ee:gateway",
    3: "ray::ServeReplica:domicile-ee:qwen2.5",
    4: "ray::ServeReplica:domicile-ee:qwen2",
    5: "ray::ServeReplica:domicile-ee:qwen2.initialize_and_get_metadata",
    6: "ray::ServeReplica:domicile-kr:gateway",
    7: "",
}


def test_actors_are_told_apart_by_country_and_deployment() -> None:
    assert actors(TITLES, "ee", ("gateway", "qwen2", "other")) == {"gateway": [2], "qwen2": [4, 5], "other": []}
    assert actors(TITLES, "kr", ("gateway",)) == {"gateway": [6]}


def test_a_model_with_a_dot_is_no_method_of_another() -> None:
    assert actors(TITLES, "ee", ("qwen2.5",)) == {"qwen2.5": [3]}


def test_this_process_has_a_title_and_some_memory() -> None:
    me = psutil.Process()
    assert titles([me])[os.getpid()]
    assert 0 < memory([me]) <= family_memory(os.getpid())


def test_a_process_that_is_gone_counts_nothing() -> None:
    gone = psutil.Popen(["true"])
    gone.wait()
    assert titles([gone]) == {}
    assert memory([gone]) == family_memory(gone.pid) == 0
