"""What goes wrong on purpose, and to whom."""
