"""How properties are tested here: by many examples, however long a slow machine takes for one."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mininetes", deadline=None)
settings.load_profile("mininetes")
