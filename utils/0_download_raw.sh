#!/usr/bin/env bash
# Fetches the two raw Amazon files into a folder, resuming interrupted downloads, and verifies them.
#
#   bash utils/0_download_raw.sh [FOLDER]      default: $RAW_DATA, else raw_data in the project
#
# A file that is there already, gzipped or not, is not fetched again. A download is kept as FILE.part until its
# content has the known md5 sum. One that SKIP_CHECKSUM let through is verified by the next run that does not skip it.
here=${BASH_SOURCE:-$0}
. "${here%0_download_raw.sh}../utils/shell.sh" || return 1 2>/dev/null || exit 1

RAW_DATA_URLS=${RAW_DATA_URLS:-http://snap.stanford.edu/data/amazon/productGraph/categoryFiles}  # tried in turn
SKIP_CHECKSUM=${SKIP_CHECKSUM:-0}  # 1: take a file whatever its sum
ATTEMPTS=20  # for one file from one address, as long as each brings it further

files=(reviews_Electronics_5.json.gz meta_Electronics.json.gz)

size_of() { # FILE: its bytes, 0 where it is not there
  if [[ -f $1 ]]; then wc -c < "$1" | tr -d ' '; else echo 0; fi
}

# URL PART: fetches URL, from where PART ends. Status 0: PART is the server's file, as far as can be told.
fetch() {
  local url=$1 part=$2 attempt before code status
  local show=(--silent --show-error)
  if [[ -t 2 ]]; then show=(--show-error); fi # curl's own meter: share, rate and time left
  for ((attempt = 0; attempt < ATTEMPTS; attempt++)); do
    before=$(size_of "$part")
    status=0
    code=$(curl "${show[@]}" --fail --location --proto-redir '=http,https' --globoff --connect-timeout 30 \
      --speed-limit 1024 --speed-time 60 --continue-at - --output "$part" --write-out '%{http_code}' \
      -- "$url") || status=$?
    case $status in
      0) return 0 ;;
      23) fail "can't write $part; make room or choose another folder" ;;
      33) echo "the server can't resume; starting over" >&2; rm -f "$part" ;;
      22) # 416: the part is no beginning of the server's file
        if [[ $code != 416 || $before == 0 ]]; then return 1; fi
        echo "$part does not fit the server's file; starting over" >&2
        rm -f "$part"
        ;;
      18 | 28 | 52 | 55 | 56 | 92) # interrupted
        if (($(size_of "$part") <= before)); then return 1; fi
        echo "interrupted at $(size_of "$part") bytes; resuming" >&2
        ;;
      *) return 1 ;;
    esac
  done
  return 1
}

unverified_mark() { echo "$folder/.$1.unverified"; } # FILE: what says that it was fetched without being verified

# FILE: ends with an error where it was fetched without being verified, and is not the known file
verify_later() {
  local wrong
  if [[ $SKIP_CHECKSUM == 1 || ! -e $(unverified_mark "$1") ]]; then return; fi
  if [[ -e $folder/$1 ]]; then
    wrong=$("$PLAIN_PYTHON" "$ROOT/utils/data/raw_files.py" verify "$folder/$1" 2>&1) || fail "${wrong#error: }"
  fi
  rm -f "$(unverified_mark "$1")"
}

# FILE: fetches it from the first base that has it whole
download() {
  local file=$1 part=$folder/$1.part base resumed wrong=""
  for base in "${bases[@]}"; do
    while true; do
      resumed=$(size_of "$part")
      echo "$file: fetching from ${base%/}" >&2
      if ! fetch "${base%/}/$file" "$part"; then break; fi
      if [[ $SKIP_CHECKSUM == 1 ]] || wrong=$("$PLAIN_PYTHON" "$ROOT/utils/data/raw_files.py" verify "$part" 2>&1); then
        if [[ $SKIP_CHECKSUM == 1 ]]; then : > "$(unverified_mark "$file")"; else rm -f "$(unverified_mark "$file")"; fi
        mv -f "$part" "$folder/$file"
        return
      fi
      rm -f "$part"
      if [[ $resumed == 0 ]]; then break; fi # else the part of an earlier download may be to blame: once more
      echo "$file: the resumed download is not the known file; starting over" >&2
    done
  done
  wrong=${wrong#error: }
  if [[ -n $wrong ]]; then fail "${wrong//"$part"/$folder/$file}"; fi
  fail "$file could not be fetched from ${bases[*]}; check the network, set RAW_DATA_URLS to other addresses," \
    "or put the file into $folder (run again to resume)"
}

if (($# > 1)) || [[ ${1:-} == -* ]]; then fail "usage: 0_download_raw.sh [FOLDER]"; fi
folder=${1:-${RAW_DATA:-$ROOT/raw_data}}
command -v curl > /dev/null || fail "curl not found; install it, or put the files into $folder: ${files[*]}"
find_python
find_plain_python || fail "${BASE_PYTHON:-python3} is no Python 3.7 or newer; install one"
read -r -d '' -a bases < <(printf '%s\0' "$RAW_DATA_URLS") || true
if ((${#bases[@]} == 0)); then fail "RAW_DATA_URLS is empty; unset it, or set it to addresses"; fi
mkdir -p "$folder" || fail "can't make the folder $folder; choose another"
folder=$(cd "$folder" && pwd)

for file in "${files[@]}"; do
  name=${file%%_*}_Electronics
  if there=$(cd "$folder" && { compgen -G "$name*.json" || compgen -G "$name*.json.gz"; }); then
    verify_later "$file"
    echo "$there: there already" >&2
  else
    download "$file"
  fi
done
