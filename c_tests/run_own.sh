#!/usr/bin/env bash
# Builds and runs our own C programs, some at a time: run_own.sh [NAME...]
#
# The environment is run_lessons.sh's, and JOBS, how many at a time: they wait for deadlines more than they compute.
# SKIP_OWN names programs that can't run in this way of building (literal_headers with the shared library, which has no
# crc32; wal_enospc and durable where fsync can't be replaced). Each program says what it skipped itself.
# The exit code is 0 if every program was built and ended with 0. The last line counts the tests in them.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CXX=${CXX:-g++}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
CXXFLAGS=${CXXFLAGS:--std=c++17 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
TEST_RUNNER=${TEST_RUNNER:-}
SKIP_OWN=${SKIP_OWN:-}
JOBS=${JOBS:-$(nproc)}
SUBDIRS="-I$root/include/w09 -I$root/include/w10 -I$root/include/w11"

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-own-XXXXXX") || exit 1
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
build() { # SOURCE PROGRAM
    case $1 in
    *.cpp) $CXX $CXXFLAGS $LOGSHIP_INCLUDE $SUBDIRS -o "$2" "$1" $LOGSHIP_LIBS ;;
    *) $CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -o "$2" "$1" $LOGSHIP_LIBS ;;
    esac
}

run_one() { # SOURCE NAME: its place is a directory of its own, where what it prints and its counts are left too
    local place=$work/$2 said skipped status=0
    mkdir "$place"
    # shellcheck disable=SC2086
    { build "$1" "$place/program" &&
        TMPDIR=$place timeout 300 $TEST_RUNNER "$place/program"; } >"$place/out" 2>"$place/err" || status=1
    # A program that ends without a word on how many tests it has is one test.
    said=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$place/out" | tail -n 1)
    skipped=$(grep -E '^ *SKIPPED: ' "$place/out" | sed "s/SKIPPED: /SKIPPED: $2: /")
    if [ "$status" -eq 0 ]; then
        said=${said:-1 passed, 0 failed}
        [ -z "$skipped" ] || said="$said, $(wc -l <<<"$skipped") skipped"
        echo "$said" >"$place/counts"
        printf '%-24sok      %s\n%s' "$2" "$said" "${skipped:+$skipped$'\n'}"
    else
        case $said in *" 0 failed"* | "") said="0 passed, 1 failed" ;; esac
        echo "$said" >"$place/counts"
        printf '%-24sFAILED\n%s\n%s\n' "$2" "$(cat "$place/out")" "$(cat "$place/err")" >&2
    fi
    rm -f "$place/program"
}

for source in "$here"/own/*.c "$here"/own/*.cpp; do
    name=$(basename "$source")
    name=${name%.*}
    case " $SKIP_OWN " in
    *" $name "*)
        echo "SKIPPED: $name, which can't be built with these libraries"
        mkdir "$work/$name"
        echo "0 passed, 0 failed, 1 skipped" >"$work/$name/counts"
        continue
        ;;
    esac
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    run_one "$source" "$name" &
done
wait
cat "$work"/*/counts | awk '{ passed += $1; failed += $3; skipped += $5 } END {
    print passed " passed, " failed " failed" (skipped ? ", " skipped " skipped" : ""); exit failed > 0 || passed == 0 }'
