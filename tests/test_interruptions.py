"""Commands that are killed anywhere, and started again, make what an undisturbed run makes.

    SOAK_KILLS=100 ./test.sh tests/test_interruptions.py -s      100 kills over all stages; a summary is printed
"""
import collections
import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import random_dataset
from tests.raw_server import CONTENT, Handler, serving
from utils.dataset import write_dataset
from utils.files import ROOT
from utils.tf1 import tf

STAGES = ("download", "convert", "remap", "build", "train", "infer", "run.sh")
KILLS = int(os.environ.get("SOAK_KILLS", 14))
# Parts of the names of columns that differ from run to run.
CLOCKS = ("seconds", "per_second", "latency", "step_ms", "half_width")
SUMMARY = collections.OrderedDict()


@pytest.fixture(scope="module", autouse=True)
def summary():
    yield
    print("\n%-10s %6s %15s %12s" % ("stage", "kills", "runs completed", "differences"))
    for stage, counts in SUMMARY.items():
        print("%-10s %6d %15d %12d" % ((stage,) + counts))
    print("%-10s %6d %15d %12d" % (("all",) + tuple(map(sum, zip(*SUMMARY.values())))))


class Command:
    """A command that is started again and again, in a process group of its own."""

    def __init__(self, *arguments, folder=ROOT, **environment):
        self._arguments, self._folder = [str(argument) for argument in arguments], str(folder)
        self._environment = dict(os.environ, **environment)

    def start(self, log):
        return subprocess.Popen(self._arguments, cwd=self._folder, env=self._environment, stdout=log, stderr=log,
                                start_new_session=True)

    def run(self, log):
        """Runs it to its end; returns the seconds that it took."""
        started = time.time()
        assert self.start(log).wait(timeout=300) == 0, open(log.name).read()
        return time.time() - started


def soak(stage, kills, command, made, forget, reference, log_path):
    """Kills `command` `kills` times at random moments, starting it again each time, then lets it end, and compares.

    Args:
      made: a function that returns the command's products, a dictionary.
      forget: a function that removes them.
      reference: the products of an undisturbed run, and the seconds that it took.
    """
    expected, seconds = reference
    chosen = random.Random("%s %s" % (stage, os.environ.get("SOAK_SEED", "")))
    killed = ended = 0
    with open(log_path, "w") as log:
        while killed < kills:
            process = command.start(log)
            try:
                status = process.wait(timeout=chosen.uniform(0, seconds))
                assert status == 0, open(log_path).read()
                ended += 1
                forget()
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, chosen.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
                process.wait()
                killed += 1
        command.run(log)
    products = made()
    differences = [name for name in sorted(set(expected) | set(products)) if expected.get(name) != products.get(name)]
    SUMMARY[stage] = killed, ended + 1, len(differences)
    assert not differences, "%s\n%s" % (differences, open(log_path).read())


def undisturbed(command, made, log_path):
    with open(log_path, "w") as log:
        seconds = command.run(log)
    return made(), seconds


def kills_of(stage):
    return KILLS // len(STAGES) + (STAGES.index(stage) < KILLS % len(STAGES))


def digests(folder):
    """The md5 of each file in `folder`, hidden ones too, locks aside: nothing half-written may be left."""
    return {name: hashlib.md5(open(os.path.join(str(folder), name), "rb").read()).hexdigest()
            for name in os.listdir(str(folder)) if os.path.isfile(os.path.join(str(folder), name)) and name != ".lock"}


def results(folder, stage):
    """The rows of a CSV, without the columns of the clocks."""
    path = os.path.join(str(folder), "results_%s.csv" % stage)
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if not any(clock in name for clock in CLOCKS)}
                for row in csv.DictReader(file)]


def checkpoint(path):
    """The variables of a checkpoint, as the md5 of each."""
    reader = tf.train.load_checkpoint(path)
    return {name: hashlib.md5(np.ascontiguousarray(reader.get_tensor(name))).hexdigest()
            for name in reader.get_variable_to_shape_map()}


# ---- data ------------------------------------------------------------------------------------------------------------

class SlowHandler(Handler):
    """Sends a file bit by bit, so that a kill falls into the transfer."""

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the client was killed
            super().handle()

    def setup(self):
        super().setup()
        whole = self.wfile.write

        def write(data):
            for start in range(0, len(data), 2000):
                whole(data[start:start + 2000])
                time.sleep(0.01)
        self.wfile.write = write


def test_download(download, tmp_path):
    with serving(CONTENT, handler=SlowHandler) as server:
        script = Command("bash", download.script, download.folder, RAW_DATA_URLS=server.base, NO_PROXY="*",
                         PATH=download.path)

        def made():
            return digests(download.folder)

        def forget():
            shutil.rmtree(str(download.folder))
        reference = undisturbed(script, made, str(tmp_path / "log"))
        forget()
        soak("download", kills_of("download"), script, made, forget, reference, str(tmp_path / "log"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    Command(sys.executable, "utils/make_sample.py", "small", "--output", folder).run(open(os.devnull, "w"))
    return folder


def data_commands(raw, folder):
    return {"convert": Command(sys.executable, "utils/1_convert_pd.py", "--raw_data", raw, "--output", folder,
                               "--if_needed"),
            "remap": Command(sys.executable, "utils/2_remap_id.py", "--output", folder, "--if_needed"),
            "build": Command(sys.executable, "din/build_dataset.py", "--remap", folder / "remap.pkl", "--output",
                             folder / "dataset.pkl")}


@pytest.mark.parametrize("stage", ["convert", "remap", "build"])
def test_data_preparation(raw, tmp_path, stage):
    log = str(tmp_path / "log")
    whole, before, disturbed = tmp_path / "whole", tmp_path / "before", tmp_path / "disturbed"
    whole.mkdir()
    commands = data_commands(raw, whole)
    for name in ("convert", "remap", "build"):
        if name == stage:
            break
        commands[name].run(open(log, "w"))
    shutil.copytree(str(whole), str(before))

    def forget():
        shutil.rmtree(str(disturbed), ignore_errors=True)
        shutil.copytree(str(before), str(disturbed))
    forget()
    reference = undisturbed(commands[stage], lambda: digests(whole), log)
    soak(stage, kills_of(stage), data_commands(raw, disturbed)[stage], lambda: digests(disturbed), forget, reference,
         log)


# ---- models ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An undisturbed run's folder with its log, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("trained")
    write_dataset(str(folder / "dataset.pkl"), random_dataset())
    reference = undisturbed(train_command(folder), lambda: trained_in(folder), str(folder / "log"))
    return folder, reference


def model_command(script, folder, *flags):
    return Command(sys.executable, "pnn/" + script, "--dataset", folder / "dataset.pkl",
                   "--save_path", folder / "save_path", "--results", folder / "results", *flags)


def train_command(folder):
    return model_command("train.py", folder, "--batch_size", 8, "--epochs", 2, "--eval_every", 5, "--resume")


def infer_command(folder):
    return model_command("infer.py", folder, "--batch_size", 3, "--duration", 0)


def trained_in(folder):
    save_path = str(folder / "save_path")
    with open(os.path.join(save_path, "state.json")) as file:
        state = json.load(file)
    return {"row": results(folder / "results", "train"), "curve": results(folder / "results", "curves"),
            "best": checkpoint(save_path + "/ckpt"), "latest": checkpoint(save_path + "/latest"),
            "finished": state["finished"],
            "state": {name: value for name, value in state["state"].items() if "seconds" not in name}}


def test_training_evaluation_and_checkpoints(trained, tmp_path):
    whole, reference = trained
    shutil.copy(str(whole / "dataset.pkl"), str(tmp_path))

    def forget():
        for name in ("save_path", "results"):
            shutil.rmtree(str(tmp_path / name))
    soak("train", kills_of("train"), train_command(tmp_path), lambda: trained_in(tmp_path), forget, reference,
         str(tmp_path / "log"))


def test_inference(trained, tmp_path):
    folder, _ = trained

    def made():
        return {"row": results(folder / "results", "infer"), "trained": trained_in(folder)}

    def forget():
        os.remove(str(folder / "results" / "results_infer.csv"))
    reference = undisturbed(infer_command(folder), made, str(tmp_path / "log"))
    forget()
    soak("infer", kills_of("infer"), infer_command(folder), made, forget, reference, str(tmp_path / "log"))


def test_the_whole_benchmark(project, tmp_path):
    def made():
        return {stage: results(project / "results", stage) for stage in ("train", "curves", "infer")}

    def forget():
        shutil.rmtree(str(project / "results"))
        shutil.rmtree(str(project / "pnn" / "save_path"))
    write_dataset(str(project / "pnn" / "dataset.pkl"), random_dataset())
    run = Command("./run.sh", "--eval_every", 5, folder=project, MODELS="pnn", BATCH_SIZES="16", SEEDS="1 2",
                  EPOCHS="1", NUM_ACCELERATORS="1", DURATION="0")
    reference = undisturbed(run, made, str(tmp_path / "log"))
    forget()
    soak("run.sh", kills_of("run.sh"), run, made, forget, reference, str(tmp_path / "log"))
    assert not (project / "results" / ".unfinished").exists()
