"""The batching core: who goes next, who is turned away early, and how much prefill fits a step."""
