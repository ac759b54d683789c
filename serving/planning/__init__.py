"""What would change: pure differences between countries' files and what runs, as far as it was seen."""
