"""What a run needs around it: its folder, its child processes, its live view."""
