"""What Services do with real packets: the same cases for every proxy mode, a file a mode."""

import pytest

# So that the cases, which are no test files themselves, say what was compared.
CASES = ("ports", "external", "loadbalancer", "policies", "readiness", "udp", "balance")
pytest.register_assert_rewrite("services.world", *(f"services.{name}" for name in CASES))
