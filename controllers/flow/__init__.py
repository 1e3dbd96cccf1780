"""Flows as values: fields, tables, actions, programs, their text form and their difference."""
