#!/bin/sh
# Builds and runs our own C programs: run_own.sh [NAME...]
#
# The environment is run_lessons.sh's. SKIP_OWN names programs that can't run in this way of building (literal_headers with
# the shared library, which has no crc32; wal_enospc where fsync can't be replaced). Each program says what it skipped itself.
# The exit code is 0 if every program was built and ended with 0.
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
SUBDIRS="-I$root/include/w09 -I$root/include/w10 -I$root/include/w11"

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-own-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
build() {
    case $1 in
    *.cpp) $CXX $CXXFLAGS $LOGSHIP_INCLUDE $SUBDIRS -o "$2" "$1" $LOGSHIP_LIBS ;;
    *) $CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -o "$2" "$1" $LOGSHIP_LIBS ;;
    esac >"$work/out" 2>&1
}

failed=0
for source in "$here"/own/*.c "$here"/own/*.cpp; do
    name=$(basename "$source")
    name=${name%.*}
    case " $SKIP_OWN " in *" $name "*) echo "$name: not built this way"; continue ;; esac
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    # shellcheck disable=SC2086
    if build "$source" "$work/$name" && TMPDIR=$work timeout 300 $TEST_RUNNER "$work/$name" >"$work/out" 2>"$work/err"; then
        printf '%-24sok      %s\n' "$name" "$(tail -n 1 "$work/out")"
    else
        printf '%-24sFAILED\n' "$name"
        cat "$work/out" "$work/err" >&2
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
