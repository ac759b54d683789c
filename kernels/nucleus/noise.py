"""Drawing a token by Gumbel's noise, for numba: the noise that vLLM 0.32 draws with on CPUs, of a seed and a token.

The largest of logit plus noise is a draw from the softmax of the logits. A token's noise is SplitMix64 of the row's
seed and the token's place, so that it does not depend on which other tokens are left.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.nucleus.lanes import whole_vectors
from kernels.threads import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BY_30, _BY_27, _BY_31, _BY_11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53
_MOST_BITS = np.uint64((1 << 53) - 1)


@compiled
def mixed(state: Any) -> Any:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014), of 64 bits."""
    state = (state ^ (state >> _BY_30)) * _FIRST
    state = (state ^ (state >> _BY_27)) * _SECOND
    return state ^ (state >> _BY_31)


@compiled
def gumbel(bits: Any) -> Any:
    """Of 53 bits, as a number between 0 and 1: -log(-log(it)), always below 37.5."""
    return -math.log(-math.log((np.float64(bits) + 0.5) * _UNIT))


@compiled
def _loses(bits: Any, ahead: Any, noise: Any) -> Any:
    """Says so mostly, with one exponential: who wins has -log(u) < exp(ahead - noise), and 1 - u <= -log(u)."""
    return (np.float64(_MOST_BITS - bits) + 0.5) * _UNIT >= math.exp(ahead - noise)


@compiled
def all_lose(row: Any, first: int, count: int, logit: Any, best: Any, noise: Any) -> Any:
    """Whether, of ``count`` tokens from ``first`` on with logits of at most ``logit``, none is certainly better."""
    whole_vectors()
    most = np.uint64(0)
    for place in range(first, first + count):
        most = max(most, mixed(row + np.uint64(place + 1) * _GOLDEN))
    return _loses(most >> _BY_11, np.float64(logit) - best, noise)


@compiled
def better(row: Any, place: Any, logit: Any, token: int, best: Any, noise: Any) -> Any:
    """The better of the ``token`` found so far, -1 for none, and that at ``place``: it, its logit and its noise.

    ``row`` is the row's mixed seed. Differences of logits are added to the noise, which is lost in a logit of 1e38.
    """
    bits = mixed(row + np.uint64(place + 1) * _GOLDEN) >> _BY_11
    ahead = np.float64(logit) - best
    if token >= 0 and _loses(bits, ahead, noise):
        return token, best, noise
    own = gumbel(bits)
    if token < 0 or ahead + own > noise:
        return place, np.float64(logit), own
    return token, best, noise
