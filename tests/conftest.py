"""Fixtures: real data where it is at hand, a model's folder, copies of the project and of its downloader, a clock."""
import glob
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

# The tests use logical CPU devices, as many as they need, also where there is a GPU; test_gpu.py sets TESTS_ON_GPU.
if not os.environ.get("TESTS_ON_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from utils.files import ROOT

# What the shell that starts the tests exports of these, and of the project's own variables, is not for the tests.
for script in glob.glob(os.path.join(glob.escape(ROOT), "**", "*.sh"), recursive=True):
    with open(script, encoding="utf-8") as file:
        for variable in re.findall(r"\b([A-Z_]+)=\$\{\1:-", file.read()):
            os.environ.pop(variable, None)
for variable in ("VENV", "CONDA_PREFIX", "STARTED_BY", "TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "PYTHONIOENCODING",
                 "PYTHONWARNINGS", "PYTHONINSPECT"):
    os.environ.pop(variable, None)
os.environ["VIRTUAL_ENV"] = sys.prefix

from tests.helpers import Folder, run_script
from tests.raw_server import CONTENT, META, REVIEWS
from utils.data import raw_files
from utils.results import PUBLISHED, RESULTS

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


class Clock:
    """time.perf_counter, in its stead: it goes by what is spent alone."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """A `Clock` that everything reads which calls time.perf_counter."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def folder(tmp_path):
    """din's `Folder`, with a small data set."""
    return Folder(tmp_path / "din")


@pytest.fixture
def project(tmp_path):
    """A copy of the project, as an archive holds it: without the files that running it makes, and without git."""
    copy = tmp_path / "a [1] project"
    shutil.copytree(ROOT, str(copy), ignore=shutil.ignore_patterns(
        ".*", "__pycache__", "raw_data", "results", "results_*", "comparison", "save_path*", "dataset.pkl"))
    (copy / "results").mkdir()
    shutil.copy(os.path.join(RESULTS, PUBLISHED), str(copy / "results"))
    return copy


@pytest.fixture
def download(tmp_path):
    """A function of base addresses that downloads from them, and returns the finished process.

    It runs a copy of the scripts that takes CONTENT for the published files. Its attribute `folder` has the files.
    """
    utils = tmp_path / "project" / "utils"
    (utils / "data").mkdir(parents=True)
    for name in ("__init__.py", "environment.py", "files.py", "data/__init__.py", "data/raw_files.py", "shell.sh",
                 "0_download_raw.sh"):
        shutil.copy(os.path.join(ROOT, "utils", name), str(utils / name))
    source = (utils / "data" / "raw_files.py").read_text()
    for kind, name in (("reviews", REVIEWS), ("meta", META)):
        digest = hashlib.md5(gzip.decompress(CONTENT["/" + name])).hexdigest()
        source = source.replace(raw_files.KNOWN_MD5[kind], digest)
    (utils / "data" / "raw_files.py").write_text(source)
    interpreter = tmp_path / "bin"
    interpreter.mkdir()
    (interpreter / "python3").symlink_to(sys.executable)

    def run(*bases, **environment):
        environment = dict(os.environ, RAW_DATA_URLS=" ".join(bases), NO_PROXY="*", PATH=run.path, **environment)
        return subprocess.run(["bash", str(run.script), str(run.folder)], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    run.script, run.folder = utils / "0_download_raw.sh", tmp_path / "raw"
    run.path = "%s:%s" % (interpreter, os.environ["PATH"])
    return run
