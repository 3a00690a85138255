"""Words around numbers."""

from npcrepro.base.wording import in_words, middle, plural, seeds_line, span


def test_numbers_of_things():
    assert [plural(number, "case") for number in (0, 1, 2, 1000)] == ["0 cases", "1 case", "2 cases", "1,000 cases"]


def test_lists_in_words():
    assert [in_words([]), in_words([1]), in_words([1, 2, 3])] == ["none", "1", "1, 2 and 3"]
    assert in_words((value for value in (0.123, 4)), ".1f") == "0.1 and 4.0"


def test_spans():
    assert [span([]), span([3, 3]), span([1500, 2, 40])] == ["–", "3", "2 to 1,500"]


def test_seeds():
    assert [seeds_line([0]), seeds_line([0, 2])] == ["seed 0", "seeds 0, 2"]


def test_of_one_or_two_patients_none_is_in_the_middle():
    assert middle(1, "U-Net") == "the only patient that the first fold tests"
    assert middle(2, "U-Net").startswith("the worse of 2")
