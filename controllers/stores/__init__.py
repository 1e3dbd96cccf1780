"""Stores outside of the lab that a CNI may keep what it knows in."""
