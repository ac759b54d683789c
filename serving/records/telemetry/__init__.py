"""Traces, metrics and logs of one country, told to the country's own collector and Prometheus, and to nobody else."""

from serving.settings import deafen

# Before anything below imports OpenTelemetry's SDK, in whatever process: it reads some of its variables as it is
# imported, and the rest whenever one of its parts is made.
deafen()
