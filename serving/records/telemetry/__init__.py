"""Traces, metrics and logs of one country, told to the country's own collector and Prometheus, and to nobody else."""
