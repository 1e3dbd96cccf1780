"""What pod networks do with real packets: the same cases for every variant of every CNI that registers itself."""

import pytest

# So that what is no test file itself says what was compared.
pytest.register_assert_rewrite("cni.cases", "cni.world")
