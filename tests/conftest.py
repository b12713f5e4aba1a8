"""The real data that tests may use, where it is to be had."""
import os

import pytest

from tests.helpers import run_script
from utils.files import ROOT

RAW = os.path.join(os.path.dirname(ROOT), "shared", "data", "amazon_beauty")


@pytest.fixture(scope="session")
def beauty(tmp_path_factory):
    """Folder with the remap.pkl and dataset.pkl of real Amazon Beauty purchases, prepared as a user does it."""
    if not os.path.isdir(RAW):
        pytest.skip("the Beauty purchases are not beside the project (%s)" % RAW)
    folder = tmp_path_factory.mktemp("beauty")
    for command in (["utils/1_convert_pd.py", "--raw_data", RAW, "--output", folder],
                    ["utils/2_remap_id.py", "--output", folder],
                    ["din/build_dataset.py", "--remap", folder / "remap.pkl", "--output", folder / "dataset.pkl"]):
        done = run_script(*command, env={"SKIP_CHECKSUM": "1"})
        assert done.returncode == 0, done.stderr
    return folder
