"""What a run proves: statistics, checks, and the histories of its requests."""
