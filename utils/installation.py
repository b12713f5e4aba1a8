"""The Python environment that setup.sh installs into: what is in it, whether that is whole, and its packages.

    python utils/installation.py is_set_up FOLDER [--test]          exit status 0 where nothing has to be installed
    python utils/installation.py check FOLDER cpu|gpu               that what setup.sh has installed there is whole
    python utils/installation.py install FOLDER cpu|gpu [--test]    what is missing, in the pinned versions

FOLDER is the environment's, and the interpreter is its own. Needs the standard library only. A TensorFlow that setup.sh
did not install is kept, and with it whatever it runs on: the versions that are there take the place of the pinned ones.
"""
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from utils.files import ROOT, UserError, replacing, run_main

# Of each file of requirements that has to be installed, the modules that must be there.
MODULES = {"base": "tensorflow tensorboard numpy pandas orjson tqdm matplotlib".split(),
           "test": "pytest hypothesis ruff sklearn".split(), "serve": ["waitress"]}
OPTIONAL = "onnx"  # for the tests; a TensorFlow that is there already may not go together with it
PROJECT_OF = {"sklearn": "scikit-learn"}  # where a module's name is not its distribution's
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu")  # distributions that requirements/ has
BUILDS = "tensorflow-"  # and cpu or gpu: TensorFlow's files of requirements
INSTALLED = "deep_interest_setup.json"  # in the environment: what setup.sh has installed, when all is there
BEGUN = "deep_interest_begun.json"      # its name while packages change
# pip's variables that say where packages come from and how they are reached; others would change where they go.
SOURCES_OF_PIP = {"PIP_" + name for name in (
    "INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX TRUSTED_HOST CERT CLIENT_CERT PROXY TIMEOUT DEFAULT_TIMEOUT RETRIES "
    "CACHE_DIR NO_CACHE_DIR CONFIG_FILE KEYRING_PROVIDER NO_INPUT ONLY_BINARY NO_BINARY PREFER_BINARY LOG").split()}


def requirements_of(part):
    """The lines of requirements/<part>.txt, without its comments."""
    with open(os.path.join(ROOT, "requirements", part + ".txt"), encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line]


def digest_of(part):
    """The SHA-256 sum of the requirements of `part`."""
    return hashlib.sha256("\n".join(requirements_of(part)).encode("utf-8")).hexdigest()


def parts_of(tests):
    """The files of requirements, TensorFlow's aside, that have to be installed; `tests`: for the tests as well."""
    return ["base", "test", "serve"] if tests else ["base"]


def python_version():
    """The version that folders of packages are named by, such as 3.11."""
    return "%d.%d" % sys.version_info[:2]


def has_module(name):
    """Whether the module `name` can be found; a folder without `__init__.py`, a remnant, is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.has_location


class Environment:
    """The environment in `folder`; raises UserError unless this interpreter is its own."""

    def __init__(self, folder):
        self.folder, self.python = folder, os.path.join(folder, "bin", "python")
        self._mark, self._begun = os.path.join(folder, INSTALLED), os.path.join(folder, BEGUN)
        if not os.path.samefile(sys.prefix, folder):
            raise self._broken("is no environment: its Python is that of %s" % sys.prefix)

    def _broken(self, problem):
        return UserError("%s %s; mend or remove it, or name another, for example VENV=.venv-new ./setup.sh"
                         % (self.folder, problem))

    def mark(self):
        """What setup.sh has installed here, as `_write_mark` writes it; None where that is not known."""
        try:
            with open(self._mark, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def _write_mark(self, tensorflow, earlier, parts):
        """Writes a mark: the earlier one, with the digests of `parts` as they are now.

        `tensorflow` is the version of the one that setup.sh has installed, None where it keeps another.
        """
        digests = dict(earlier["requirements"] if earlier else {}, **{part: digest_of(part) for part in parts})
        with replacing(self._mark, "w", encoding="utf-8") as file:
            json.dump({"folder": self.folder, "python": python_version(), "tensorflow": tensorflow,
                       "requirements": digests}, file, indent=1)

    def is_set_up(self, tests):
        """Whether all modules are there, and of what setup.sh has installed itself the versions that are asked for."""
        mark, parts = self.mark(), parts_of(tests)
        if os.path.exists(self._begun) or mark and mark["python"] != python_version():
            return False
        if mark:
            digests = mark["requirements"]
            pinned = parts + [part for part in digests if part.startswith(BUILDS)]
            pinned += [OPTIONAL] * (tests and mark["tensorflow"] is not None)
            if any(digests.get(part) != digest_of(part) for part in pinned):
                return False
        return all(has_module(name) for part in parts for name in MODULES[part])

    def check_pip(self):
        """Raises UserError unless pip runs, and may write here."""
        if subprocess.call([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL):
            raise UserError("%s has no pip that works; install it (%s -m ensurepip), or name another environment, for "
                            "example VENV=.venv-new ./setup.sh" % (self.folder, self.python))
        packages = sysconfig.get_paths()["purelib"]
        if not os.access(packages, os.W_OK):
            raise UserError("%s can't be written; activate another environment, or name one, for example "
                            "VENV=.venv-new ./setup.sh" % packages)

    def _check_imports(self, names):
        """Raises UserError unless the modules `names` can be imported, and are of the versions that pip says."""
        code = ("import importlib, json, sys\n"
                "print(json.dumps({name: getattr(importlib.import_module(name), '__version__', None)\n"
                "                  for name in sys.argv[1:]}))")
        done = subprocess.run([sys.executable, "-c", code] + names, cwd=ROOT, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"))
        if done.returncode:
            raise self._broken("has packages that can't be imported (%s)"
                               % (done.stderr.strip().splitlines() or ["signal %d" % -done.returncode])[-1])
        versions = self._versions()
        for name, version in json.loads(done.stdout.splitlines()[-1]).items():
            projects = TENSORFLOWS if name == "tensorflow" else [PROJECT_OF.get(name, name)]
            listed = [listed for project in projects for listed in versions.get(project, [])]
            numbers = {re.match(r"[\d.]*", text).group().strip(".") for text in listed + [version] * bool(version)}
            if len(numbers) > 1:
                raise self._broken("has a damaged %s, of versions %s" % (name, ", ".join(sorted(numbers))))

    def _versions(self):
        """{distribution: the versions that the first folder of packages which has it has of it}, usually one."""
        versions = {}
        for folder in filter(os.path.isdir, sys.path):
            here = {}
            for name in sorted(os.listdir(folder)):
                parts = re.match(r"(.+?)-(\d[^-]*)(-py[\d.]+)?\.(dist|egg)-info$", name)
                if parts:
                    here.setdefault(re.sub("[-_.]+", "-", parts.group(1)).lower(), []).append(parts.group(2))
            versions = dict(here, **versions)
        return versions

    def _tensorflow_version(self):
        versions = self._versions()
        return next((versions[name][0] for name in TENSORFLOWS if name in versions), None)

    def keeps_tensorflow(self):
        """Whether there is a TensorFlow which setup.sh has not installed."""
        if not has_module("tensorflow") or os.path.exists(self._begun):
            return False
        mark = self.mark()
        return mark is None or mark["tensorflow"] != self._tensorflow_version()

    def check(self, build):
        """Raises UserError unless what the mark says is there and works, with TensorFlow for `build`, cpu or gpu."""
        mark = self.mark()
        if mark is None:
            raise self._broken("is not set up to the end")
        if not os.path.exists(mark["folder"]) or not os.path.samefile(mark["folder"], self.folder):
            raise self._broken("was moved: its scripts are for %s" % mark["folder"])
        self.check_pip()
        if self.keeps_tensorflow():
            return
        if build == "gpu" and "tensorflow-cpu" in mark["requirements"]:
            raise self._broken("has TensorFlow for CPUs")
        self._check_modules(mark["requirements"])

    def install(self, build, tests):
        """Installs what is missing, with TensorFlow for `build`, cpu or gpu, where there is none yet."""
        keeps, ready = self.keeps_tensorflow(), self.is_set_up(tests)
        if keeps:
            print("Keeping the TensorFlow that is installed.", flush=True)
        elif ready:
            print("All that is needed is in %s." % self.folder, flush=True)
        if ready:
            return
        self.check_pip()
        mark, parts = self.mark(), parts_of(tests)
        builds = [part for part in mark["requirements"] if part.startswith(BUILDS)] if mark else []
        if keeps:
            self._check_imports(["tensorflow"])
            self._install_beside_tensorflow(parts)
            self._check_modules(parts)
            if mark:
                self._write_mark(None, mark, parts + builds)
        else:
            builds = builds or [BUILDS + build]
            print("Installing TensorFlow (%s build) and what else is needed into %s ..."
                  % (builds[0][len(BUILDS):], self.folder), flush=True)
            parts += builds + [OPTIONAL] * tests
            self._install_pinned(parts)
            self._check_modules(parts)
            self._write_mark(self._tensorflow_version(), mark, parts)
            os.remove(self._begun)

    def _check_modules(self, parts):
        """Raises UserError unless the modules of `parts` are there and can be imported."""
        names = [name for part in parts for name in MODULES.get(part, [])]
        missing = [name for name in names if not has_module(name)]
        if missing:
            raise UserError("pip says that it has installed all, but %s is not in %s; see %s -m pip config list, and "
                            "run %s -m pip install --force-reinstall %s"
                            % (", ".join(missing), self.folder, self.python, self.python,
                               " ".join(PROJECT_OF.get(name, name) for name in missing)))
        self._check_imports(names)

    def _install_beside_tensorflow(self, parts):
        """Installs the names of `parts`. Nothing that the TensorFlow there runs on may change: it is the constraint."""
        names = sorted({re.match(r"[\w.-]+", line).group() for part in parts for line in requirements_of(part)})
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
            for name, (version, *_) in self._versions().items():
                if re.match(r"\d[\w.!+]*$", version):
                    constraints.write("%s==%s\n" % (name, version))
            constraints.flush()
            self._pip(["--constraint", constraints.name] + names)

    def _install_pinned(self, parts):
        """Installs `parts` in their versions. What is killed meanwhile leaves no mark that says that all is there."""
        packages = sysconfig.get_paths()["purelib"]
        marked, begun = os.path.exists(self._mark), os.path.exists(self._begun)
        if marked:
            os.replace(self._mark, self._begun)
        else:
            open(self._begun, "a").close()
        before = os.stat(packages).st_mtime_ns
        try:
            self._pip(["--force-reinstall"] * begun +  # pip takes what a killed one left for installed
                      [word for part in parts
                       for word in ("--requirement", os.path.join(ROOT, "requirements", part + ".txt"))])
        except UserError:
            if os.stat(packages).st_mtime_ns == before and not begun:  # nothing has changed, as without network
                if marked:
                    os.replace(self._begun, self._mark)
                else:
                    os.remove(self._begun)
            raise

    def _pip(self, arguments):
        install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if subprocess.call(install + arguments, env=pip_variables()):
            raise UserError("pip could not install into %s; see its message above, check the network, and run it again"
                            % self.folder)


def pip_variables():
    """The variables for pip: those of the user's that name sources, none that lead it out of the environment."""
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith("PIP_") or name in SOURCES_OF_PIP}
    variables.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0")  # they hold against pip.conf, too
    if not os.access(os.path.expanduser("~"), os.W_OK):
        variables["PIP_NO_CACHE_DIR"] = "1"  # pip would warn of it
    return variables


def main():
    command, folder = sys.argv[1:3]
    environment, tests = Environment(folder), "--test" in sys.argv
    if command == "is_set_up":
        sys.exit(not environment.is_set_up(tests))
    elif command == "check":
        environment.check(sys.argv[3])
    else:
        environment.install(sys.argv[3], tests)


if __name__ == "__main__":
    run_main(main)
