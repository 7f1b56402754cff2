#!/bin/sh
# Builds and runs the tests that break things between real processes: run_faults.sh [NAME...]
#
# The environment is run_own.sh's. They measure too, so what each prints is shown. They take minutes; these make them
# longer or shorter: FAULTS_FLAP_SECONDS, FAULTS_RECORDS, FAULTS_CUTS, FAULTS_SEED. Black holes need root and ip(8);
# without them their cases are skipped, and said to be.
# The exit code is 0 if every program was built and ended with 0.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
SUBDIRS="-I$root/include/w09 -I$root/include/w10 -I$root/include/w11"

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-faults-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=0
for source in "$here"/faults/*.c; do
    name=$(basename "$source" .c)
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    echo "== $name"
    # The variables hold several words each, so they are left unquoted.
    # shellcheck disable=SC2086
    if $CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -o "$work/$name" "$source" $LOGSHIP_LIBS -lpthread &&
        TMPDIR=$work "$work/$name" 2>"$work/err"; then
        :
    else
        echo "$name: FAILED; the end of its messages:" >&2
        tail -n 40 "$work/err" >&2
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
