import pytest

from npcrepro.base.errors import InputError, pick


def test_pick():
    assert pick({"a": 1}, "a", "thing") == 1
    with pytest.raises(InputError, match=r"^unknown thing 'stepwize'; did you mean 'stepwise'\? choices: stepwise, z$"):
        pick({"stepwise": 1, "z": 2}, "stepwize", "thing")
    with pytest.raises(InputError, match=r"^unknown thing 'l04'; did you mean 'L04'\?"):
        pick({"X04": 1, "L04": 2}, "l04", "thing")
    with pytest.raises(InputError, match=r"^unknown thing 'xyz'; choices: stepwise$"):
        pick({"stepwise": 1}, "xyz", "thing")
