# Sourced by the shell scripts, which set ROOT, the project's folder, first: the interpreter, set-up, models, errors.

fail() { echo "error: $*" >&2; exit 1; }

# Sets ENVIRONMENT to the folder of the environment to use: VENV (below the project's folder, if not absolute), else the
# active virtualenv or conda environment, else .venv; and PYTHON to its interpreter.
find_python() {
  ENVIRONMENT=${VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-.venv}}}
  case $ENVIRONMENT in /*) ;; *) ENVIRONMENT=$ROOT/$ENVIRONMENT ;; esac
  PYTHON=$ENVIRONMENT/bin/python
}

# True where the modules named can be imported.
has_modules() {
  [ -x "$PYTHON" ] && "$PYTHON" -c '
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' "$@"
}

# Runs setup.sh where one of the modules that it installs is missing; arguments are setup.sh's.
ensure_setup() {
  local modules="tensorflow numpy pandas orjson tqdm"
  if [ "${1:-}" = --test ]; then modules="$modules pytest hypothesis sklearn matplotlib"; fi
  find_python
  # shellcheck disable=SC2086  # a list of words
  has_modules $modules || "$ROOT/setup.sh" "$@"
}

# Sets MODEL_LIST to the models in MODELS, with "all" spelled out.
find_models() {
  MODEL_LIST=${MODELS:-din}
  if [ "$MODEL_LIST" = all ]; then MODEL_LIST="din din_dice deepFM pnn wide_deep"; fi
  local model
  for model in $MODEL_LIST; do
    case $model in
      din | din_dice | deepFM | pnn | wide_deep) ;;
      *) fail "no model $model; MODELS is 'all' or some of: din din_dice deepFM pnn wide_deep" ;;
    esac
  done
}

# The folder of a model, and the flags that choose it there.
folder_of() { echo "${1%_dice}"; }
flags_of() { case $1 in *_dice) echo --dice ;; esac; }
save_path_of() { case $1 in *_dice) echo "save_path/dice/batch_$2" ;; *) echo "save_path/batch_$2" ;; esac; }

# run_stage STAGE TITLE [ARGUMENT ...]: moves earlier results aside, then runs STAGE.py of each model in MODEL_LIST at each
# of BATCH_SIZES, on NUM_ACCELERATORS; logs and the CSV in results/. A failure ends it with Python's status.
run_stage() {
  local stage=$1 title=$2 model batch_size
  shift 2
  cd "$ROOT"
  "$PYTHON" -m utils.results set_aside "$stage"
  mkdir -p results
  for model in $MODEL_LIST; do
    for batch_size in $BATCH_SIZES; do
      echo "== $title $model, batch size $batch_size"
      # shellcheck disable=SC2046  # no flag, or one
      (cd "$(folder_of "$model")" && "$PYTHON" "$stage.py" $(flags_of "$model") --batch_size "$batch_size" \
        --num_accelerators "$NUM_ACCELERATORS" --save_path "$(save_path_of "$model" "$batch_size")" "$@") |
        tee "results/result_${stage}_${model}_$batch_size.txt"
    done
  done
}

# Makes the dataset.pkl of each model in MODEL_LIST that has none. Where no data has been prepared at all: from the real
# files in raw_data/ if they are there, else on the small sample.
ensure_data() {
  local model folder
  for model in $MODEL_LIST; do
    folder=$ROOT/$(folder_of "$model")
    [ -e "$folder/dataset.pkl" ] && continue
    if [ ! -e "$ROOT/raw_data/remap.pkl" ]; then
      if compgen -G "$ROOT/raw_data/reviews_Electronics*.json*" >/dev/null || [ -n "${RAW_DATA:-}" ]; then
        "$ROOT/prepare_dataset.sh"
      else
        echo "No data has been prepared: using the small generated sample (./prepare_dataset.sh fetches the real data)."
        "$ROOT/prepare_dataset.sh" --sample small
      fi
    fi
    [ -e "$folder/dataset.pkl" ] || (cd "$folder" && "$PYTHON" build_dataset.py)
  done
}
