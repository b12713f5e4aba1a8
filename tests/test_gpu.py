"""On a machine with an NVIDIA GPU: the golden values, the optimizers' formulas and the rankings hold on it, too."""
import os
import subprocess
import sys

import pytest

from utils.files import ROOT

FILES = ("tests/test_models.py", "tests/test_optimizers.py", "tests/test_ranking.py", "tests/test_contract.py")


@pytest.fixture
def gpu_environment():
    """The environment of a process that sees the GPUs."""
    environment = dict(os.environ, TESTS_ON_GPU="1")
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # conftest.py's
    devices = subprocess.run([sys.executable, "-m", "utils.towers"], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                             universal_newlines=True).stdout
    if "Devices: no GPU" in devices:
        pytest.skip("TensorFlow sees no GPU here")
    return environment


def test_the_models_are_the_same_on_a_gpu(gpu_environment):
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"] + list(FILES), cwd=ROOT, env=gpu_environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 0, done.stdout
