#!/usr/bin/env bash
# Prepares the data: raw files -> integer ids -> every model's dataset.pkl. Steps that are finished are skipped.
#   ./prepare_dataset.sh                  real data: the files in RAW_DATA, downloaded where they are not there yet
#   ./prepare_dataset.sh --sample [full]  generated data, small (about 10,000 users) or full (the real set's counts)
here=${BASH_SOURCE:-$0}
. "${here%prepare_dataset.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

RAW_DATA=${RAW_DATA:-$ROOT/raw_data}   # folder of the raw files
export SKIP_CHECKSUM=${SKIP_CHECKSUM:-}   # 1: the raw files are a data set of your own, not the real Electronics

sample=
case "$*" in
  "") ;;
  --sample | "--sample small") sample=small ;;
  "--sample full") sample=full ;;
  *) fail "unknown arguments: $*; usage: ./prepare_dataset.sh [--sample [small|full]]" ;;
esac

ensure_setup
hold_lock "$ROOT/raw_data" "$@"
if [ -n "$sample" ]; then
  RAW_DATA=$ROOT/raw_data/sample_$sample
  "$PYTHON" "$ROOT/utils/make_sample.py" "$sample" --output "$RAW_DATA"
else
  bash "$ROOT/utils/0_download_raw.sh" "$RAW_DATA"
fi
"$PYTHON" "$ROOT/utils/1_convert_pd.py" --raw_data "$RAW_DATA" --if_needed
"$PYTHON" "$ROOT/utils/2_remap_id.py" --if_needed
for script in "$ROOT"/*/build_dataset.py; do
  (cd "$(dirname "$script")" && "$PYTHON" build_dataset.py --if_needed)
done
