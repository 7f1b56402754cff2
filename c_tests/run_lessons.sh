#!/bin/sh
# Builds the lessons' programs, runs each and compares what it prints with expected/: run_lessons.sh [NAME...]
#
# Without names: all of them, the two test_harness.sh too. What to build with comes from the environment, as in
# w10/test_harness.sh: CC, CFLAGS, LOGSHIP_INCLUDE, LOGSHIP_LIBS, TEST_RUNNER.
# The exit code is 0 if every program was built, ended with 0 and printed what it must.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
TEST_RUNNER=${TEST_RUNNER:-}
export CC CFLAGS LOGSHIP_INCLUDE LOGSHIP_LIBS TEST_RUNNER

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-lessons-XXXXXX") || exit 1
running=
# On every way out: what runs is ended (it cleans up after itself on SIGTERM), then what was built here goes.
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

# Runs a command with its output in $work. In the background, so that a signal is handled while it runs.
run() {
    TMPDIR=$work "$@" >"$work/stdout" 2>"$work/stderr" &
    running=$!
    wait "$running"
    status=$?
    running=
    return "$status"
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
run_program() {
    set -- "$here"/w*/"$1.c" "$work/$1"
    $CC $CFLAGS $LOGSHIP_INCLUDE -o "$2" "$1" $LOGSHIP_LIBS >"$work/stdout" 2>"$work/stderr" && run $TEST_RUNNER "$2"
}

run_lesson() {
    case $1 in
    w1[01]_test_harness) run "$here/${1%_test_harness}/test_harness.sh" ;;
    *) run_program "$1" ;;
    esac && "$here/compare_expected.sh" "$1" <"$work/stdout" 2>>"$work/stderr"
}

[ $# -gt 0 ] || set -- kv_store_test kv_correctness_test \
    wal_record_test wal_writer_test wal_recovery_test wal_crash_test wal_checkpoint_test wal_full_test w10_test_harness \
    repl_heartbeat_test repl_ship_test repl_quorum_test repl_conflict_test repl_rejoin_test repl_full_test w11_test_harness

failed=0
passed=0
for name in "$@"; do
    if run_lesson "$name"; then
        printf '%-24sok\n' "$name"
        passed=$((passed + 1))
    else
        printf '%-24sFAILED\n' "$name"
        cat "$work/stdout" "$work/stderr" >&2
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
