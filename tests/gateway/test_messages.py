"""Catalogues are whole and in step, negotiation follows RFC 9110, and nothing a caller sends makes either raise."""

from __future__ import annotations

import re
import string
import unicodedata
from functools import cache
from importlib.resources import files

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import Reason
from serving.gateway import messages
from serving.gateway.messages import BLANKS, LANGUAGES, negotiate, text

KEYS = frozenset(name.lower() for name in Reason.__members__)
FOREIGN = [language for language in LANGUAGES if language != "en"]
EE = ("et", "ru", "en")
KR = ("ko",)

# Letters that a message in the language cannot do without. Latin ones are told from English by the test of sameness.
SCRIPTS = {
    "ru": "CYRILLIC",
    "kk": "CYRILLIC",
    "ko": "HANGUL",
    "el": "GREEK",
    "ja": "HIRAGANA",
    "ar": "ARABIC",
    "hi": "DEVANAGARI",
}


def source(language: str) -> str:
    return files(messages).joinpath(f"{language}.yaml").read_text(encoding="utf-8")


@cache
def catalogue(language: str) -> dict[str, list[str]]:
    written = yaml.safe_load(source(language))
    return {key: [entry] if isinstance(entry, str) else entry for key, entry in written.items()}


def blanks(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
class TestCatalogue:
    def test_has_every_reason_and_no_other(self, language: str) -> None:
        assert catalogue(language).keys() == KEYS

    def test_writes_each_key_once(self, language: str) -> None:
        keys = re.findall(r"^(\w+):", source(language), re.MULTILINE)
        assert sorted(keys) == sorted(KEYS)

    def test_has_the_blanks_of_english_variant_by_variant(self, language: str) -> None:
        english = {key: [blanks(variant) for variant in variants] for key, variants in catalogue("en").items()}
        assert {
            key: [blanks(variant) for variant in variants] for key, variants in catalogue(language).items()
        } == english

    def test_uses_known_blanks_and_ends_with_a_variant_without_any(self, language: str) -> None:
        for key, variants in catalogue(language).items():
            assert all(blanks(variant) <= BLANKS for variant in variants), key
            assert not blanks(variants[-1]), key

    def test_puts_fuller_variants_first(self, language: str) -> None:
        for key, variants in catalogue(language).items():
            sets = [blanks(variant) for variant in variants]
            hidden = [(a, b) for index, a in enumerate(sets) for b in sets[index + 1 :] if a <= b]
            assert not hidden, f"{key}: a later variant can never be used"

    def test_is_plain_tidy_text(self, language: str) -> None:
        for key, variants in catalogue(language).items():
            for variant in variants:
                assert variant == " ".join(variant.split()), key
                assert unicodedata.is_normalized("NFC", variant), key
                assert all(unicodedata.category(character)[0] != "C" for character in variant), key


@pytest.mark.parametrize("language", FOREIGN)
def test_no_english_is_left_over(language: str) -> None:
    others = {other: catalogue(other) for other in LANGUAGES if other != language}
    for key, variants in catalogue(language).items():
        for index, variant in enumerate(variants):
            assert all(variant != other[key][index] for other in others.values()), key
            if language in SCRIPTS:
                names = [unicodedata.name(character, "") for character in variant]
                assert sum(name.startswith(SCRIPTS[language]) for name in names) >= 5, key


def test_only_known_catalogues_are_there() -> None:
    written = {path.name.removesuffix(".yaml") for path in files(messages).iterdir() if path.name.endswith(".yaml")}
    assert written == set(LANGUAGES)


def test_placeholders_are_filled_as_far_as_facts_go() -> None:
    reason = Reason.INTEGER_ABOVE_MAX_VALUE
    assert text(reason, "en", {"limit": 8, "got": 9}, "n") == "'n' must be at most 8; you sent 9."
    assert text(reason, "en", {"limit": 8}, "n") == "'n' must be at most 8."
    assert text(reason, "en", {"got": 9}, "n") == "'n' is too large. Send a smaller number."
    assert text(reason, "en") == "A number in the body is too large. Send a smaller one."
    assert text(reason, "et", {"limit": 8}, "n") == "„n“ võib olla kõige rohkem 8."


def test_an_unknown_language_is_answered_in_english() -> None:
    assert text(Reason.NO_KEY, "fr") == text(Reason.NO_KEY, "en")
    assert messages.spoken("fr") == "en"
    assert messages.spoken("et") == "et"


def test_facts_are_never_read_as_templates() -> None:
    said = text(Reason.INVALID_GRAMMAR, "en", {"expected": "{n} <= 1000 {param.__class__}"}, "text")
    assert said.endswith("Expected: {n} <= 1000 {param.__class__}")


def test_facts_lose_what_is_invisible_and_misleads() -> None:
    assert messages.clean("name", "a\x00b\x1b[31m\u202ec\ud800d\u2066") == "ab[31mcd"
    assert messages.clean("detail", "one\r\ntwo\u2028three") == "one two three"
    assert messages.clean("name", "क्‍ष") == "क्‍ष", "joiners are letters' business"


def test_facts_are_bounded() -> None:
    assert len(messages.clean("name", "x" * 1000)) == 200
    assert len(messages.clean("detail", "x" * 1000)) == 500
    assert messages.clean("name", "x" * 200) == "x" * 200


def test_latin_values_keep_their_order_in_arabic() -> None:
    said = text(Reason.UNKNOWN_PARAMETER, "ar", {}, "messages[0]")
    assert "\u2068messages[0]\u2069" in said
    assert "\u2068" not in text(Reason.UNKNOWN_PARAMETER, "en", {}, "messages[0]")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_wrong_address_is_told_the_right_one(language: str) -> None:
    said = text(Reason.INCORRECT_HOSTNAME, language, {"address": "http://127.0.0.1:9233/v1", "country": "ee"})
    assert "http://127.0.0.1:9233/v1" in said
    assert "ee" in said


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_country_that_is_down_says_when_to_come_back(language: str) -> None:
    assert "37" in text(Reason.COUNTRY_UNAVAILABLE, language, {"country": "ee", "seconds": 37})


@pytest.mark.parametrize(
    ("header", "countrys", "language"),
    [
        (None, EE, "et"),
        ("", EE, "et"),
        ("et-EE", EE, "et"),
        ("RU-ru", EE, "ru"),
        ("ru, et", EE, "ru"),
        ("ru;q=0.5, et;q=0.8", EE, "et"),
        ("ru ; q=0.5 ,\tet;q=0.4", EE, "ru"),
        ("et;q=0.2, et-EE;q=0.9, ru;q=0.5", EE, "et"),
        ("fr-FR, fr;q=0.9, en;q=0.1", EE, "en"),
        ("de", EE, "de"),
        ("hi-Deva-IN", KR, "hi"),
        ("fr", KR, "ko"),
        ("xx-YY, zz", KR, "ko"),
        ("*", KR, "ko"),
        ("*, en;q=0.5", KR, "ko"),
        ("*;q=0.3, en", KR, "en"),
        ("ko;q=0.1, *", KR, "en"),
        ("ko;q=0", KR, "en"),
        ("et;q=0", EE, "ru"),
        ("et;q=0, *", EE, "ru"),
        ("*;q=0", EE, "et"),
        ("*;q=0, ru", EE, "ru"),
        ("ru;q=1.1", EE, "et"),
        ("ru;q=0.1234", EE, "et"),
        ("ru;q=-1", EE, "et"),
        ("ru;q=nan", EE, "et"),
        ("ru;q=", EE, "et"),
        ("ru;level=1", EE, "et"),
        ("*-CH", EE, "et"),
        ("ru_RU", EE, "et"),
        ("русский", EE, "et"),
        (";;;,,,;q=1", EE, "et"),
        ("bogus!, ru", EE, "ru"),
        ("ru" + ", xx" * 10_000, EE, "et"),
        ("fr", ("fr",), "fr"),
        ("de", (), "de"),
        (None, (), "en"),
    ],
)
def test_negotiation(header: str | None, countrys: tuple[str, ...], language: str) -> None:
    assert negotiate(header, countrys) == language


RANGES = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[a-zA-Z*]{1,9}(-[a-zA-Z0-9]{1,9})?[ \t]?(;[ \t]?q=[0-9.]{0,5})?", fullmatch=True),
)
HEADERS = st.one_of(st.none(), st.text(), st.lists(RANGES, max_size=60).map(",".join))


@given(HEADERS, st.sampled_from([EE, KR, ("ar", "en"), ("fr",), ()]))
def test_negotiation_never_raises_and_finds_a_language_spoken_here(header: str | None, own: tuple[str, ...]) -> None:
    assert negotiate(header, own) in {*LANGUAGES, *own}


VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.just(10**5000), st.just("{param}" * 50), st.just("\ud800"))


@given(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from([*LANGUAGES, "fr", "", "../en"]),
    st.dictionaries(st.one_of(st.sampled_from(sorted(BLANKS)), st.text(max_size=5)), VALUES, max_size=8),
    st.one_of(st.none(), st.text()),
)
def test_text_never_raises(key: str, language: str, facts: dict[str, str | int | float], param: str | None) -> None:
    said = text(Reason[key.upper()], language, facts, param)
    assert said
    assert len(said) < 2000
    said.encode()
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in said)


def test_load_reads_every_catalogue() -> None:
    messages.load()
