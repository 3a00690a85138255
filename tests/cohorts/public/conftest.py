import pytest
from public_sources import Converted


@pytest.fixture
def conversion(tmp_path):
    def conversion(key, variant=None, source=tmp_path / "source", destination=tmp_path / "cohort"):
        return Converted(key, source, destination, variant)

    return conversion


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"
