"""How long a switch takes, from any profile to any other."""

import pytest

from tasks.prune.structure.profiles import NONE, Profiles
from tasks.prune.structure.switching import switching_time, switching_times
from tests.cases import llama
from tests.prune.structure.profiled import built


def test_switching_is_timed_and_leaves_the_profile_in_force():
    profiles = built(llama())
    profiles.switch("depth")
    took = switching_time(profiles, switches=20)
    assert took.switches == 20
    assert 0 < took.median_ms <= took.worst_ms
    assert profiles.active == "depth"
    with pytest.raises(ValueError, match="switches: 0 given"):
        switching_time(profiles, switches=0)
    with pytest.raises(ValueError, match="none but the model itself"):
        switching_time(Profiles(llama()))


def test_switching_is_timed_by_where_it_goes():
    profiles = built(llama())
    took = switching_times(profiles, switches=40)
    assert list(took) == profiles.names
    assert sum(each.switches for each in took.values()) == 40 * len(profiles.names)
    assert all(20 < each.switches < 60 and 0 < each.median_ms <= each.worst_ms for each in took.values())
    assert profiles.active == NONE
