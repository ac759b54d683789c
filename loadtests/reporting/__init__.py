"""What a run looks like: pages, plots and tables."""
