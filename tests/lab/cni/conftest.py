"""One lab a variant, shared by all cases; variants are shared out over the test files, which run side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cni.world import OBJECTS, VARIANTS, World, started


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A file that says SHARE = (i, n) has every n-th variant, beginning with the i-th.

    A case marked `crossing` is about packets between nodes: of variants that send some.
    """
    share = getattr(metafunc.module, "SHARE", None)
    if share is not None and "lab" in metafunc.fixturenames:
        chosen = list(VARIANTS)[share[0] :: share[1]]
        if metafunc.definition.get_closest_marker("crossing"):
            chosen = [name for name in chosen if crosses(name)]
        metafunc.parametrize("lab", chosen, indirect=True, scope="module")


def crosses(variant: str) -> bool:
    """Whether pods of different nodes reach each other under this CNI, as it says itself."""
    cni, options = VARIANTS[variant]
    return cni.traits_of(options).crosses


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The lab of a variant."""
    with started(request.param, tmp_path_factory.mktemp("lab"), OBJECTS) as made:
        yield made
