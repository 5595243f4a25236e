"""Nobody ever sees what was answered to another: default settings, without any rule."""

import pytest

from tests.caching.oracle.subject import make_cache
from tests.caching.oracle.users import POLICIES, crowd
from tests.repeated import MORE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("at_once_max", [1, 8, 40], ids=["in order", "a few", "many"])
def test_no_user_sees_anothers_bytes(seed, at_once_max):
    faults, reused = crowd(make_cache, seed=seed, requests=1_300 * MORE, at_once_max=at_once_max)
    assert not faults, "\n".join(faults[:10])
    assert reused > 30  # visitors without credentials do share


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.decode().strip("/"))
def test_a_rush_of_users_to_one_path_gives_each_their_own(path):
    faults, _ = crowd(make_cache, seed=9, requests=300 * MORE, at_once_max=150, path=path)
    assert not faults, "\n".join(faults[:10])
