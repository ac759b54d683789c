"""An engine without a model, for tests and for trying the gateway on a laptop."""

from serving.engine.fake.engine import FakeEngine

__all__ = ["FakeEngine"]
