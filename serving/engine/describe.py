"""``python -m serving.engine.describe`` writes ``arguments.json`` anew after vLLM's pin has moved."""

from __future__ import annotations

import json

from serving.engine.arguments import DESCRIPTION
from serving.engine.vllm import describe_arguments

if __name__ == "__main__":
    DESCRIPTION.write_text(json.dumps(describe_arguments(), indent=1) + "\n")
