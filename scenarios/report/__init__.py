"""Results: their model and files, and their tables as text."""
