# Sourced by the shell scripts before anything else: the shell that they run in, the interpreter, set-up, models, errors.
# Sets ROOT, the project's folder.

# This far any shell reads on.
if [ -z "${BASH_VERSION:-}" ]; then
  echo "error: the project's scripts are for bash; start them as they are, such as ./run.sh, or with bash run.sh" >&2
  return 1
fi
if [ "${BASH_SOURCE[1]-$0}" != "$0" ]; then
  echo "error: ${BASH_SOURCE[1]} is to be run, not sourced: bash ${BASH_SOURCE[1]}" >&2
  return 1
fi
# -p: no functions, options and search paths from the environment; -v and -x, for looking into a script, stay.
case $- in
  *p*) ;;
  *)
    unset BASH_ENV POSIXLY_CORRECT
    export -n SHELLOPTS BASHOPTS
    exec bash -p"${-//[!vx]/}" -- "$0" "$@"
    ;;
esac
set -euo pipefail
unset GREP_OPTIONS TMOUT FUNCNEST
if [ ! -w "${TMPDIR:-/tmp}" ]; then unset TMPDIR; fi
if [ -z "${HOME:-}" ]; then  # Python and its packages would make a folder named ~, where the user has no entry in passwd
  HOME=~
  if [ ! -w "$HOME" ]; then HOME=/nonexistent; fi
  export HOME
fi
# What a script tells those that it starts; from any other process the names are of something else.
case ${STARTED_BY:-} in
  "$$" | "$PPID") ;;
  *) unset LOCKED_FOLDERS BEGUN_BY GOES_ON ;;
esac
export STARTED_BY=$$
unset ENVIRONMENT PYTHON FOLDER VARIANT MODEL_LIST RANKS BEGAN_RESULTS
ROOT=$(cd -- "${BASH_SOURCE[0]%shell.sh}.." && printf '%s/' "$PWD")  # the / keeps a line break at the name's end
ROOT=${ROOT%/}

# What a virtual environment's activation unsets, what keeps `python -m` from the folder that it is run in, and what has a
# script wait for its user.
unset PYTHONHOME PYTHONSAFEPATH PYTHONINSPECT

fail() { echo "error: $*" >&2; exit 1; }

# Sets ENVIRONMENT to the folder of the environment to use: VENV (below the project's folder, if not absolute), else the
# active virtualenv or conda environment, else .venv; and PYTHON to its interpreter.
find_python() {
  ENVIRONMENT=${VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-.venv}}}
  case $ENVIRONMENT in /*) ;; *) ENVIRONMENT=$ROOT/$ENVIRONMENT ;; esac
  if [ -n "${VENV:-}" ]; then export VENV=$ENVIRONMENT; fi  # for scripts of a copy of the project: the tests make some
  PYTHON=$ENVIRONMENT/bin/python
}

# Sets PLAIN_PYTHON to an interpreter for what needs the standard library alone: the environment's where it runs, else
# BASE_PYTHON, else python3. False where that is none.
find_plain_python() {
  for PLAIN_PYTHON in "$PYTHON" "${BASE_PYTHON:-python3}"; do
    if "$PLAIN_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null; then return 0; fi
  done
  return 1
}

# installation COMMAND [ARGUMENT ...]: utils/installation.py of the environment, with its interpreter.
installation() {
  local command=$1
  shift
  "$PYTHON" "$ROOT/utils/installation.py" "$command" "$ENVIRONMENT" "$@"
}

# Runs setup.sh where something that it installs is missing; arguments are setup.sh's.
ensure_setup() {
  find_python
  { [ -x "$PYTHON" ] && installation is_set_up "$@" 2>/dev/null; } || "$ROOT/setup.sh" "$@"
}

# A line for each model, "NAME FOLDER [VARIANT]": each folder with model.py, and its variants model_<variant>.py (utils/models.py).
all_models() {
  local path folder variant
  for path in "$ROOT"/*/model.py "$ROOT"/*/model_*.py; do
    [ -e "$path" ] && [ -e "$(dirname "$path")/model.py" ] || continue
    folder=$(basename "$(dirname "$path")") variant=$(basename "$path" .py)
    case $folder in [!A-Za-z]* | *[!A-Za-z0-9_]*) continue ;; esac  # no name of a package
    variant=${variant#model} variant=${variant#_}
    echo "$folder${variant:+_$variant} $folder $variant"
  done | LC_ALL=C sort -f
}

# Sets FOLDER to the folder of the model $1, and VARIANT to which of its variants it is, or nothing.
find_model() { read -r _ FOLDER VARIANT < <(all_models | grep "^$1 "); }

# True where $1 is a whole number of 1 or more.
is_count() {
  case $1 in
    '' | *[!0-9]* | 0*) return 1 ;;
  esac
}

# Prints the arguments, each once, in the order in which they come first.
each_once() {
  local word words=
  for word in "$@"; do
    case " $words " in
      *" $word "*) ;;
      *) words="$words${words:+ }$word" ;;
    esac
  done
  echo "$words"
}

# Sets what the benchmark is run with, from the environment, and MODEL_LIST to the models in MODELS, "all" spelled out.
read_settings() {
  export MODELS=${MODELS:-din}                      # any of those that all_models finds, or all
  export BATCH_SIZES=${BATCH_SIZES:-256 512 1024}   # recommendations (training) or users (inference) per accelerator
  export EPOCHS=${EPOCHS:-2}                        # passes over the training set
  export NUM_ACCELERATORS=${NUM_ACCELERATORS:-1}    # devices to split each batch over
  export NUM_WORKERS=${NUM_WORKERS:-1}              # processes that train together, a cluster on this machine
  export DURATION=${DURATION:-}                     # seconds of each inference; empty: until its figure is steady
  export SEEDS=${SEEDS:-}                           # of training, each once; empty: train.py's default, once
  export TARGET_GAUC=${TARGET_GAUC:-}               # at which training ends; empty: at none
  local variable word known model
  known=$(all_models | cut -d ' ' -f 1 | tr '\n' ' ')
  for variable in EPOCHS NUM_ACCELERATORS NUM_WORKERS; do
    is_count "${!variable}" || fail "$variable is ${!variable}; give 1 or more"
  done
  [[ ${DURATION:-0} =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "DURATION is $DURATION; give seconds, 0 or more"
  set -f  # a word such as * is no pattern
  # shellcheck disable=SC2086  # a list of words
  BATCH_SIZES=$(each_once $BATCH_SIZES)
  for word in ${BATCH_SIZES:-none}; do
    is_count "$word" || fail "BATCH_SIZES has $word; give numbers, each 1 or more"
  done
  # shellcheck disable=SC2086  # a list of words
  SEEDS=$(each_once $SEEDS)
  MODEL_LIST=$MODELS
  if [ "$MODEL_LIST" = all ]; then MODEL_LIST=${known% }; fi
  # shellcheck disable=SC2086  # a list of words
  MODEL_LIST=$(each_once $MODEL_LIST)
  [ -n "$MODEL_LIST" ] || fail "MODELS names no model; it is 'all' or some of: ${known% }"
  for model in $MODEL_LIST; do
    case " $known" in
      *" $model "*) ;;
      *) fail "no model $model; MODELS is 'all' or some of: ${known% }" ;;
    esac
  done
  set +f
}

# check_arguments [ARGUMENT ...]: ends the script unless the arguments are such as train.py, or infer.py, is to be given
# by it. Sets RANKS where they ask for rankings, which are not measured. Nothing needs to be installed for it.
check_arguments() {
  local status=0
  RANKS=
  find_python
  find_plain_python || return 0  # setup.sh says what is missing
  (cd "$ROOT" && "$PLAIN_PYTHON" -m utils.script_arguments "$(basename "$0")" "$MODEL_LIST" "$BATCH_SIZES" \
    "$NUM_ACCELERATORS" "$@") || status=$?
  case $status in
    0) ;;
    10) exit 0 ;;  # --help
    11) RANKS=1 ;;
    *) exit "$status" ;;
  esac
}

# hold_lock FOLDER [ARGUMENT ...]: runs the script again, with its arguments, as the one that may work in FOLDER; returns
# where it is already, or where a script that called this one is.
hold_lock() {
  local folder=$1
  shift
  case ${LOCKED_FOLDERS:-} in *":$folder:"*) return ;; esac
  export LOCKED_FOLDERS=${LOCKED_FOLDERS:-}:$folder:
  find_plain_python
  exec "$PLAIN_PYTHON" "$ROOT/utils/runs/locks.py" "$folder/.lock" "$ROOT/$(basename "$0")" "$@"
}

# Ends the script unless training has left a checkpoint of each model at each batch size, with each of SEEDS.
check_checkpoints() {
  (cd "$ROOT" && "$PYTHON" -m utils.runs.trained "$MODEL_LIST" "$BATCH_SIZES" "$SEEDS")
}

# begin_results COMMAND [ARGUMENT ...]: moves earlier results aside, unless the same command with the same arguments was
# interrupted: then GOES_ON is set. Nothing where a script that called this one has begun. BEGUN_BY is who has.
begin_results() {
  local command=$1 status=0
  shift
  [ -z "${BEGUN_BY:-}" ] || return 0
  (cd "$ROOT" && "$PYTHON" -m utils.runs.unfinished begin "$command" "$MODEL_LIST" -- "$BATCH_SIZES" "$NUM_ACCELERATORS" \
    "$NUM_WORKERS" "$EPOCHS" "$DURATION" "$SEEDS" "$TARGET_GAUC" "$@") || status=$?
  case $status in
    0) export GOES_ON= ;;
    10) export GOES_ON=1 ;;
    *) exit "$status" ;;
  esac
  export BEGUN_BY=$command
  BEGAN_RESULTS=1
}

# The counterpart of begin_results: makes the report. Nothing where a script that called this one has begun.
end_results() {
  [ -n "${BEGAN_RESULTS:-}" ] || return 0
  (cd "$ROOT" && "$PYTHON" -m utils.report && "$PYTHON" -m utils.runs.unfinished end "$BEGUN_BY")
}

# run_stage STAGE TITLE [ARGUMENT ...]: runs STAGE.py of each model in MODEL_LIST at each of BATCH_SIZES with each of
# SEEDS, on NUM_ACCELERATORS, training by NUM_WORKERS; logs and the CSV in results/. A failure ends it with Python's
# status. The stage `rank` is infer.py with --top_k, of what was trained.
run_stage() {
  local stage=$1 title=$2 model batch_size seed run workers=1 launcher=() flags=() step
  shift 2
  if [ "$stage" = train ] && [ "$NUM_WORKERS" -gt 1 ]; then
    workers=$NUM_WORKERS
    launcher=("$ROOT/utils/cluster/local_cluster.py" "$NUM_WORKERS")
  fi
  cd "$ROOT"
  for model in $MODEL_LIST; do
    find_model "$model"
    for batch_size in $BATCH_SIZES; do
      for seed in ${SEEDS:-""}; do  # without SEEDS once, with an empty one
        echo "== $title $model, batch size $batch_size${seed:+, seed $seed}"
        step=("${BEGUN_BY:-}" "$stage" "$model" "$batch_size" "$NUM_ACCELERATORS" "$workers" "$seed")
        if [ -n "$GOES_ON" ] && "$PYTHON" -m utils.runs.unfinished has "${step[@]}"; then
          echo "done before the interruption"
          continue
        fi
        flags=()
        if [ "$stage" != rank ]; then flags=(--batch_size "$batch_size" --num_accelerators "$NUM_ACCELERATORS"); fi
        if [ "$stage" = train ] && [ -n "$seed" ]; then flags+=(--seed "$seed"); fi
        if [ "$stage" = train ] && [ -n "$TARGET_GAUC" ]; then flags+=(--target_gauc "$TARGET_GAUC"); fi
        if [ "$stage" = infer ] && [ -n "$DURATION" ]; then flags+=(--duration "$DURATION"); fi
        run=$batch_size${seed:+_seed_$seed}  # as in utils/runs/trained.py
        # shellcheck disable=SC2086  # no flag, or one
        (cd "$FOLDER" && "$PYTHON" ${launcher[@]+"${launcher[@]}"} "${stage/rank/infer}.py" ${VARIANT:+--$VARIANT} \
          --save_path "save_path/${VARIANT:+$VARIANT/}batch_$run" ${flags[@]+"${flags[@]}"} "$@") |
          tee -a "results/result_${stage}_${model}_$run.txt"
        [ -z "${BEGUN_BY:-}" ] || "$PYTHON" -m utils.runs.unfinished add "${step[@]}"
      done
    done
  done
}

# Makes the dataset.pkl of each model in MODEL_LIST that has none. Where no data has been prepared at all: from the real
# files in raw_data/ if they are there, else on the small sample.
ensure_data() {
  local model folder
  for model in $MODEL_LIST; do
    find_model "$model"
    folder=$ROOT/$FOLDER
    [ -e "$folder/dataset.pkl" ] && continue
    if [ ! -e "$ROOT/raw_data/remap.pkl" ]; then
      if (cd "$ROOT/raw_data" && compgen -G "reviews_Electronics*.json*") >/dev/null 2>&1 || [ -n "${RAW_DATA:-}" ]; then
        "$ROOT/prepare_dataset.sh"
      else
        echo "No data has been prepared: using the small generated sample (./prepare_dataset.sh fetches the real data)."
        "$ROOT/prepare_dataset.sh" --sample small
      fi
    fi
    [ -e "$folder/dataset.pkl" ] || (cd "$folder" && "$PYTHON" build_dataset.py)
  done
}
