import pytest
from cohort_cases import write


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "cohort")
    return tmp_path / "cohort"
