"""What the process's environment may change, settled once: importing utils does it, before a library reads a variable.

| variable | decision |
|---|---|
| MPLBACKEND, MATPLOTLIBRC | removed: plots go into PNG files, in the project's look (reports/plots.py) |
| TQDM_* | removed: the bars are the project's, and a value that tqdm can't take ends the import |
| PYTHONSAFEPATH | removed, for commands that a command starts with `-m` in the project's folder |
| PYTHONINSPECT, PYTHONHOME | removed by the shell scripts (shell.sh) |
| PYTHONWARNINGS=error, -W error | the warnings are shown, and end nothing: libraries have some |
| PYTHONIOENCODING, LC_ALL, a code page | the output's encoding; letters that it lacks are escaped (`\\u4e2d`) |
| standard output or error that is closed | nowhere |
| PYTHONOPTIMIZE=2, -OO | refused: `--help` is made of docstrings, and TensorFlow 1.15 needs them |
| NVIDIA_TF32_OVERRIDE, TF_USE_LEGACY_KERAS | set by tf1.py: float32, and no Keras |
| TF_CPP_MIN_LOG_LEVEL | the user's; tf1.py has a default |
| grpc_proxy, http_proxy, https_proxy | removed where workers connect (cluster/workers.py) |
| TF_CONFIG | cluster/tf_config.py |
| CUDA_VISIBLE_DEVICES | which GPUs there are (towers.py) |
| TF_ENABLE_ONEDNN_OPTS, ONEDNN_MAX_CPU_ISA, TF_XLA_FLAGS | the user's; as they change sums, the rows name them |
| TF_NUM_INTRAOP_THREADS, OMP_NUM_THREADS, PYTHONHASHSEED | the user's: a run on a CPU gives the same with any |
| HOME, TMPDIR, MPLCONFIGDIR, XDG_* | not needed: another folder does, without a warning; with none, one line |
| others, such as PYTHONPATH, TERM, COLUMNS, TZ, FONTCONFIG_* | the user's |
"""
import logging
import os
import sys
import warnings

REMOVED = "MPLBACKEND", "MATPLOTLIBRC", "PYTHONSAFEPATH"
CHANGES_SUMS = "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_XLA_FLAGS"


def settle():
    """Makes the process's environment such as the table says; ends the process where it can't run in it."""
    if sys.flags.optimize > 1:
        sys.exit("error: Python leaves out docstrings, which --help is made of; unset PYTHONOPTIMIZE, leave out -OO")
    for variable in set(os.environ):
        if variable in REMOVED or variable.startswith("TQDM_"):
            del os.environ[variable]
    if os.path.expanduser("~") == "~":  # neither HOME nor a user of this process's number: pathlib raises
        os.environ["HOME"] = "/nonexistent"
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for descriptor in (0, 1, 2):  # closed ones, as `>&-` leaves them: the next file would take the number
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has no encoding
            stream.reconfigure(errors="backslashreplace")


def sums_changed_by():
    """The variables that are set and change sums, as the end of a device's name: " with NAME=VALUE", or nothing."""
    return "".join(" with %s=%s" % (name, os.environ[name]) for name in CHANGES_SUMS if os.environ.get(name))


settle()
