#!/bin/sh
# Links plain C, with its symbols renamed, beside logship into one program, and lets both do the same things:
# run_oracle.sh [--only SUBJECT] [--seed N] [--rounds N | --seconds N]
#
# First it proves that plain C needs nothing of logship; after the run it builds plain C with a mistake several times
# (canaries), and demands that the oracle notices each. With arguments of one's own the canaries are left out.
# The environment is run_own.sh's; LOGSHIP_LIBS must name the static library. The exit code is 0 if all of that went
# well.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
TEST_RUNNER=${TEST_RUNNER:-}
SUBDIRS="-I$root/include/w09 -I$root/include/w10 -I$root/include/w11"
PLAIN=$here/plain_c
# Two seconds where it has five: rounds that wait for a deadline would take too long.
PLAIN_FLAGS="$CFLAGS -DPLAIN_DEADLINE_MS=2000"
PLAIN_INCLUDE="-I$PLAIN -I$PLAIN/include -I$PLAIN/include/w09 -I$PLAIN/include/w10 -I$PLAIN/include/w11"

# In memory if there is such a place: what is compared are bytes and results, and an fsync there costs nothing.
place=${TMPDIR:-/tmp}
[ -d /dev/shm ] && [ -w /dev/shm ] && place=${ORACLE_DIR:-/dev/shm}
work=$(mktemp -d "$place/logship-oracle-XXXXXX") || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 141' PIPE

die() { # WHY [OUTPUT]
    echo "run_oracle.sh: $1" >&2
    [ -s "${2:-$work/out}" ] && cat "${2:-$work/out}" >&2
    exit 1
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
compile_plain() { # OBJECT: all of plain C as one object, its names as they are; file by file in OBJECT.d
    (mkdir "$1.d" && cd "$1.d" && $CC $PLAIN_FLAGS -c $PLAIN_INCLUDE "$PLAIN"/w09/*.c "$PLAIN"/w10/*.c \
        "$PLAIN"/w11/*.c && ld -r -o "$1" ./*.o) >"$work/out" 2>&1 || die "plain C does not compile"
}

rename() { # OBJECT RENAMED: every global name that it defines gets plain_ in front; libc's stay
    nm -g --defined-only "$1" | awk '{ print $3, "plain_" $3 }' >"$2.names"
    objcopy --redefine-syms="$2.names" "$1" "$2" || die "objcopy"
}

# shellcheck disable=SC2086
link() { # PLAIN_OBJECT PROGRAM [LIBRARIES_OBJECT]
    $CC $CFLAGS -o "$2" "$work"/*.oracle.o "${3:-$work/libraries.o}" "$1" $LOGSHIP_LIBS >"$2.out" 2>&1 ||
        die "the oracle does not link" "$2.out"
}

compile_plain "$work/plain_as_is.o"
rename "$work/plain_as_is.o" "$work/plain.o"

# No name that plain C has itself, or that the course has, is asked for under its old name ...
cut -d' ' -f1 "$work/plain.o.names" | sort >"$work/defined"
nm -u "$work/plain.o" | awk '{ print $2 }' | sort >"$work/undefined"
grep -E '^(kv_|wal_|repl_|logship_|crc32|read_full|write_full|send_full|recv_full)' "$work/undefined" &&
    die "plain C asks for course functions that are not its own"
[ -z "$(comm -12 "$work/defined" "$work/undefined")" ] || die "a name was not renamed"
[ "$(wc -l <"$work/defined")" -ge 40 ] || die "plain C has fewer functions than the course"
# ... and with libc alone it is complete.
echo 'int main(void) { return 0; }' >"$work/alone.c"
# shellcheck disable=SC2086
$CC $CFLAGS -o "$work/alone" "$work/alone.c" -Wl,--whole-archive "$work/plain.o" -Wl,--no-whole-archive -lpthread \
    >"$work/out" 2>&1 || die "plain C is not complete without logship"

for source in "$here"/oracle/*.c; do
    name=$(basename "$source" .c)
    object=$work/$name.oracle.o
    [ "$name" = libraries ] && object=$work/libraries.o
    # shellcheck disable=SC2086
    $CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -c -o "$object" "$source" >"$work/out" 2>&1 || die "$name.c does not compile"
done
link "$work/plain.o" "$work/oracle"

# What waits for a deadline does so beside the rest.
TMPDIR=$work "$work/oracle" --only stall >"$work/stall" 2>&1 &
stalled=$!
# shellcheck disable=SC2086
TMPDIR=$work $TEST_RUNNER "$work/oracle" "$@" 2>"$work/err"
code=$?
wait "$stalled" || die "a stalled leader" "$work/stall"
if [ "$code" -ne 0 ]; then
    echo "the end of what the libraries said:" >&2
    tail -n 20 "$work/err" >&2
    exit 1
fi
[ $# -eq 0 ] || exit 0

# try_canary DIRECTORY SUBJECT FILE SED: plain C with a mistake in one file. The subject must see it.
try_canary() {
    mkdir "$1" "$1/objects"
    cp "$work"/plain_as_is.o.d/*.o "$1/objects/"
    sed "$4" "$PLAIN/$3" >"$1/canary.c"
    cmp -s "$PLAIN/$3" "$1/canary.c" && die "canary: $4 finds nothing in $3"
    # shellcheck disable=SC2086
    $CC $PLAIN_FLAGS -c -I"$PLAIN/${3%/*}" $PLAIN_INCLUDE -o "$1/objects/$(basename "$3" .c).o" "$1/canary.c" \
        >"$1/out" 2>&1 || die "the canary does not compile: $3 with $4" "$1/out"
    ld -r -o "$1/as_is.o" "$1"/objects/*.o
    rename "$1/as_is.o" "$1/renamed.o"
    link "$1/renamed.o" "$1/canary"
    TMPDIR=$1 "$1/canary" --only "$2" >"$1/out" 2>/dev/null
    code=$?
    [ "$code" -eq 1 ] && grep -q 'again: --only' "$1/out" ||
        die "canary not caught by $2 (exit $code): $3 with $4" "$1/out"
    printf 'canary %-18s caught: %s\n' "$2" "$3" >"$1/caught"
}

# As many at a time as there are cores, more or less.
canaries=0
canary() {
    canaries=$((canaries + 1))
    (try_canary "$work/canary-$canaries" "$@") &
    [ $((canaries % 3)) -ne 0 ] || wait
}
canary store w09/kv_store.c 's/entry->last_write_ts = ts;/entry->last_write_ts = ts > 1 ? ts - 1 : ts;/'
canary crc32 w10/crc32.c 's/i < len; i++/i < len - (len > 200); i++/'
canary codec w10/wal_record.c 's/\*out++ = (uint8_t)record->op;/*out++ = (uint8_t)(record->op + 2);/'
canary codec-damage w10/wal_record.c 's/return buffer\[at->op_at\] == WAL_OP_SET ? 0 : -1;/return 0;/'
canary conflict w11/repl_conflict.c 's/strcmp(incoming_val, existing_val) > 0/strcmp(incoming_val, existing_val) >= 0/'
canary log w10/wal_recovery.c 's/return record->timestamp > existing->last_write_ts;/return 1;/'
canary log-damage w10/wal_writer.c 's/own > 0 ? own - 8 : 1; start + 8/own > 0 ? own - 8 : 99; start + 8/'
canary checkpoint w10/wal_checkpoint.c 's/write_le(file, wal_offset, 8);/write_le(file, wal_offset + 1, 8);/'
canary checkpoint-damage w10/wal_checkpoint.c 's/ || memcmp(bytes, "CKPT", 4) != 0)/)/'
canary arguments w10/wal_writer.c "s/path == NULL || path\[0\] == '.0')/path == NULL)/"
canary ship w11/repl_ship.c 's/return poll(&state, 1, 0) > 0;/return poll(\&state, 1, 0) > 9;/'
canary wire w11/repl_ship.c 's/plain_put_ack(lsn, status, bytes);/& bytes[15] = 1;/'
canary catch-up w11/repl_rejoin.c 's/number < lsn \&\& got/number + 1 < lsn \&\& got/'
canary heartbeat w11/repl_rejoin.c 's/        int rc = 1;/        int rc = 0;/'
canary quorum w11/repl_quorum.c 's|follower_count / 2 + 1|follower_count / 2 + (config->follower_count < 4)|'
canary reship w11/repl_quorum.c 's/SHIP_AGAIN_MAX = 3/SHIP_AGAIN_MAX = 4/'
canary receive w11/repl_ship.c 's/errno == EBADMSG ? CRC_MISMATCH/errno == EBADMSG \&\& len > 13 ? CRC_MISMATCH/'
canary cluster w11/repl_ship.c 's/incoming) == SKIP)/incoming) == SKIP + 2)/'

wait
for number in $(seq "$canaries"); do
    cat "$work/canary-$number/caught" || die "canary $number was not caught"
done

# And the oracle that compares logship with itself: no difference, but two libraries they are not.
# shellcheck disable=SC2086
$CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -DCANARY_ONE_LIBRARY -c -o "$work/one_library.o" "$here/oracle/libraries.c" \
    >"$work/out" 2>&1 || die "the canary of one library does not compile"
link "$work/plain.o" "$work/canary" "$work/one_library.o"
TMPDIR=$work "$work/canary" --only two-libraries >"$work/out" 2>&1
[ $? -eq 1 ] && grep -q 'shared_functions() == 0' "$work/out" || die "canary not caught: logship compared with itself"
echo "canary two-libraries      caught: logship compared with itself"
