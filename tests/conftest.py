import pytest
import torch

from echo_torch import waiting

collect_ignore = ["reference/cases"]  # programs, no tests
torch.set_num_threads(1)
waiting.PATIENCE_SECONDS = 3600.0  # how long something takes here is the machine's business


def pytest_collection_modifyitems(items):
    """Tests of CUDA run where there is a device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
