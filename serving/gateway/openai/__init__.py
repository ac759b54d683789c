"""OpenAI's wire format to our nouns: pure, no I/O."""

from serving.gateway.openai.limits import Limits
from serving.gateway.openai.read import read

__all__ = ["Limits", "read"]
