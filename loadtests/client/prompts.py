"""Prompts of a wanted length, in tokens, without a tokenizer at hand.

Made of some five hundred English words that every common BPE vocabulary holds whole, so that a word is a token and so
is a full stop. The chat template and the tokens that it adds are not counted: they are the model's own.

Texts of different seeds part at their first words. A prefix cache finds nothing in them that was not put there on
purpose, by :func:`shared`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

_COMMON = """
    the of and to in is that for was with his they at be this have from or had by some what there we can out other
    were all your when up use how said an each she which do their time if will way about many then them would like
    so these her long make thing see him two has look more day could go come did number sound no most people my over
    know water than call first who may down side been now find any new work part take get place made live where
    after back little only round man year came show every good me give our under name very through just form great
    think say help low line turn cause much mean before move right boy old too same tell does set three want air
    well also play small end put home read hand port large add even land here must big high such follow act why ask
    men change went light kind off need house picture try us again animal point mother world near build self earth
    father head stand own page should country found answer school grow study still learn plant cover food sun four
    between state keep eye never last let thought city tree cross farm hard start might story saw far sea left late
    run while press close night real life few north open seem together next white children begin got walk example
    ease paper group always music those both mark often letter until mile river car feet care second book carry took
    science eat room friend began idea fish mountain stop once base hear horse cut sure watch color face wood main
    enough plain girl usual young ready above ever red list though feel talk bird soon body dog family direct leave
    song measure door product black short class wind question happen complete ship area half rock order fire south
    problem piece told knew pass since top whole king space heard best hour better true during hundred five remember
    step early hold west ground interest reach fast sing listen six table travel less morning ten simple several
    toward war lay against pattern slow center love person money serve appear road map rain rule pull cold notice
    voice power town fine drive fall lead cry dark machine note wait plan figure star box field rest correct able
    done beauty stood front teach week final gave green quick ocean warm free minute strong special mind behind
    clear tail produce fact street inch nothing course stay wheel full force blue object decide surface deep moon
    island foot system busy test record boat common gold possible plane age dry wonder laugh thousand ago ran check
    game shape yes hot miss brought heat snow bed bring sit perhaps fill east weight language among
"""
WORDS = tuple(_COMMON.split())
"""Common English words, each of which is one token after a space."""

_SENTENCE = (5, 14)
"""Fewest and most words of a sentence."""


def text(tokens: int, seed: int) -> str:
    """Sentences that make about ``tokens`` tokens: within a few percent on the vocabularies of common models.

    The same for the same arguments, on every machine.
    """
    return _sentences(tokens, f"text {seed}")


def shared(tokens: int, prefix: int) -> str:
    """What all prompts of the same ``prefix`` begin with. A shorter one is a shorter piece of the same."""
    return _sentences(tokens, f"shared {prefix}")


def _sentences(tokens: int, seed: str) -> str:
    if tokens < 1:
        return ""
    pieces: list[str] = []
    for piece in _pieces(random.Random(seed)):
        if len(pieces) == tokens - 1 or tokens == 1:
            break
        pieces.append(piece)
    return "".join(pieces).lstrip() + "."


def _pieces(rng: random.Random) -> Iterator[str]:
    """Token by token, without end."""
    while True:
        first, *others = rng.choices(WORDS, k=rng.randint(*_SENTENCE))
        yield f" {first.capitalize()}"
        yield from (f" {word}" for word in others)
        yield "."
