"""The process apart that compiles callers' grammars for :mod:`serving.engine.grammars`.

Reads one JSON line ``[kind, text]`` a job and answers one JSON line: ``null``, or why it was refused. It is
killed when a job takes too long, and dies by itself where a job takes too much memory.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import xgrammar
from transformers import AutoTokenizer


def _mapped_bytes() -> int:
    """What the imports have mapped already; the limit is on top of it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main(tokenizer: str, memory_limit: str) -> None:
    information = xgrammar.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(tokenizer))
    compiler = xgrammar.GrammarCompiler(information, max_threads=1, cache_enabled=False)
    ceiling = _mapped_bytes() + int(memory_limit)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    kinds: dict[str, Callable[[str], object]] = {
        "json": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "grammar": compiler.compile_grammar,
    }
    print("ready", flush=True)
    for line in sys.stdin:
        kind, text = json.loads(line)
        try:
            kinds[kind](text)
            verdict = None
        except (RuntimeError, ValueError, TypeError) as error:
            verdict = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
