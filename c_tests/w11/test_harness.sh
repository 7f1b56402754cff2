#!/bin/sh
# W11 L06: builds repl_full_test against a library (or against sources) and runs it.
#
# What to build with comes from the environment:
#   CC               the compiler                              (gcc)
#   CFLAGS           its flags                                 (-std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g)
#   LOGSHIP_INCLUDE  -I flags of the course's headers          (-I<repository>/include)
#   LOGSHIP_LIBS     what to link: libraries or .c files       (<repository>/target/release/liblogship.a -lpthread -ldl -lm)
#   TEST_RUNNER      put before the program, e.g. valgrind ... (nothing)
# The exit code is that of the tests, or 1 if they could not be built.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-harness-XXXXXX") || exit 1
running=
# On every way out: the tests end (they clean up after themselves on SIGTERM), then what was built here goes.
clean_up() {
    status=$?
    trap - EXIT
    if [ -n "$running" ]; then
        kill "$running" 2>/dev/null
        wait "$running" 2>/dev/null
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

printf '[build] compiling replication components... '
# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
if ! $CC $CFLAGS $LOGSHIP_INCLUDE -o "$work/repl_full_test" "$here/repl_full_test.c" $LOGSHIP_LIBS >"$work/build.log" 2>&1; then
    echo FAILED
    cat "$work/build.log" >&2
    exit 1
fi
echo ok

# In the background, so that a signal to this script is handled while the tests run and not after them.
TMPDIR=$work ${TEST_RUNNER:-} "$work/repl_full_test" &
running=$!
wait "$running"
status=$?
running=
exit "$status"
