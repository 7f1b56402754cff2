#!/bin/sh
# The lessons' programs with some of the course's files in plain C and logship for the rest: run_replaced.sh [MODE]...
#
# This is what a grader does with a student's files. The modes: `reach`, does the library call what a file brings;
# `alone`, each of the eleven; `pairs`, each two of them; `all`, all together. What a file of plain_c/ calls of another one's
# private functions (plain_*) is linked from there too, with the course's functions of that file hidden, so that those
# are logship's.
# The environment is run_lessons.sh's. LOGSHIP_LIBS must be the static library, its functions weak (make lib).
# The exit code is 0 if every program printed what it must.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
INCLUDE="-I$root/include -I$root/include/w09 -I$root/include/w10 -I$root/include/w11"
PLAIN=$here/plain_c/include
PLAIN_INCLUDE="-I$PLAIN -I$PLAIN/w09 -I$PLAIN/w10 -I$PLAIN/w11"
FILES="kv_store crc32 wal_record wal_writer wal_recovery wal_checkpoint
    repl_config repl_ship repl_quorum repl_conflict repl_rejoin"
FILES=$(echo $FILES)

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-replaced-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Each file as an object, and once more with only its private functions to be seen.
for file in $FILES; do
    # shellcheck disable=SC2086
    $CC $CFLAGS $PLAIN_INCLUDE -c -o "$work/$file.o" "$here"/plain_c/w*/"$file.c" || exit 1
    objcopy --wildcard --keep-global-symbol='plain_*' "$work/$file.o" "$work/private_$file.o" || exit 1
done
for program in kv_store_test kv_correctness_test wal_record_test wal_writer_test wal_recovery_test wal_crash_test \
    wal_checkpoint_test wal_full_test repl_heartbeat_test repl_ship_test repl_quorum_test repl_conflict_test \
    repl_rejoin_test repl_full_test; do
    # shellcheck disable=SC2086
    $CC $CFLAGS $INCLUDE -c -o "$work/$program.o" "$here"/w*/"$program.c" || exit 1
done

failed=0
runs=0

# One set of files: the programs that have a use for one of them, linked and run.
run_set() {
    objects=""
    private=""
    for file in $FILES; do
        case " $* " in
        *" $file "*) objects="$objects $work/$file.o" ;;
        *) private="$private $work/private_$file.o" ;;
        esac
    done
    rm -f "$work/private.a"
    # shellcheck disable=SC2086
    [ -z "$private" ] || ar rcs "$work/private.a" $private || exit 1
    [ -n "$private" ] || ar rcs "$work/private.a"
    for program in $PROGRAMS; do
        runs=$((runs + 1))
        # shellcheck disable=SC2086
        if $CC -o "$work/program" "$work/$program.o" $objects "$work/private.a" $LOGSHIP_LIBS >"$work/stdout" 2>&1 &&
            TMPDIR=$work timeout 60 "$work/program" >"$work/stdout" 2>"$work/stderr" &&
            "$here/compare_expected.sh" "$program" <"$work/stdout" 2>>"$work/stderr"; then
            continue
        fi
        echo "FAILED: $program with $*"
        cat "$work/stdout" "$work/stderr" >&2
        failed=$((failed + 1))
    done
}

# The functions of a file that the library's other files call, with that file in plain C.
reach() {
    file=$1
    shift
    runs=$((runs + 1))
    # shellcheck disable=SC2086
    $CC $CFLAGS -finstrument-functions $PLAIN_INCLUDE -c -o "$work/one.o" "$here"/plain_c/w*/"$file.c" || exit 1
    objcopy --rename-section .text=plain_text "$work/one.o" || exit 1
    rm -f "$work/private.a"
    for other in $FILES; do
        [ "$other" = "$file" ] || ar rcs "$work/private.a" "$work/private_$other.o" || exit 1
    done
    # shellcheck disable=SC2086
    if $CC -rdynamic -o "$work/program" "$work/reach.o" "$work/one.o" "$work/private.a" $LOGSHIP_LIBS \
        >"$work/stderr" 2>&1 &&
        timeout 60 "$work/program" "$@" 2>"$work/stderr"; then
        return
    fi
    echo "FAILED: reach with $file: $*"
    cat "$work/stderr" >&2
    failed=$((failed + 1))
}

reach_all() {
    # shellcheck disable=SC2086
    $CC $CFLAGS $INCLUDE -c -o "$work/reach.o" "$here/replaced/reach.c" || exit 1
    objcopy --rename-section .text=reach_text "$work/reach.o" || exit 1
    reach kv_store kv_store_set_ts kv_store_find
    reach crc32 crc32
    reach wal_record wal_record_encode wal_record_decode
    reach wal_writer wal_append
    reach wal_recovery wal_recover
    reach repl_config repl_connect repl_accept
    reach repl_ship send_full
    reach repl_conflict repl_resolve_conflict
    # The canary: nobody calls this one but a program.
    before=$failed
    reach wal_recovery wal_recover_with_checkpoint >/dev/null 2>&1
    if [ "$failed" -eq "$before" ]; then
        echo "FAILED: reach sees calls that nobody makes"
        failed=$((failed + 1))
    else
        failed=$before
    fi
}

W09="kv_store_test kv_correctness_test"
W10="wal_record_test wal_writer_test wal_recovery_test wal_crash_test wal_checkpoint_test wal_full_test"
W11="repl_heartbeat_test repl_ship_test repl_quorum_test repl_conflict_test repl_rejoin_test repl_full_test"
[ $# -gt 0 ] || set -- reach alone pairs all
for mode in "$@"; do
    case $mode in
    reach) reach_all ;;
    alone)
        PROGRAMS="$W09 $W10 $W11"
        for one in $FILES; do run_set "$one"; done
        ;;
    pairs)
        # The two programs that go through everything.
        PROGRAMS="wal_full_test repl_full_test"
        rest=$FILES
        for one in $FILES; do
            rest=${rest#"$one"}
            for other in $rest; do run_set "$one" "$other"; done
            rest=${rest# }
        done
        ;;
    all)
        PROGRAMS="$W09 $W10 $W11"
        # shellcheck disable=SC2086
        run_set $FILES
        ;;
    esac
    echo "replaced, $mode: $runs runs, $failed failed"
done
echo "$((runs - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
