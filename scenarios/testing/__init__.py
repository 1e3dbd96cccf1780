"""Labs in one's own tests: a pytest plugin, and what a test does with a lab."""
