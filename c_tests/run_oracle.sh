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
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    echo "run_oracle.sh: $1" >&2
    [ -s "$work/out" ] && cat "$work/out" >&2
    exit 1
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
compile_plain() { # OBJECT: all of plain C as one object, its names as they are; file by file in OBJECT.d
    (mkdir "$1.d" && cd "$1.d" && $CC $PLAIN_FLAGS -c $PLAIN_INCLUDE "$PLAIN"/w09/*.c "$PLAIN"/w10/*.c \
        "$PLAIN"/w11/*.c && ld -r -o "$1" ./*.o) >"$work/out" 2>&1 || die "plain C does not compile"
}

rename() { # OBJECT RENAMED: every global name that it defines gets plain_ in front; libc's stay
    nm -g --defined-only "$1" | awk '{ print $3, "plain_" $3 }' >"$work/names"
    objcopy --redefine-syms="$work/names" "$1" "$2" || die "objcopy"
}

# shellcheck disable=SC2086
link() { # PLAIN_OBJECT PROGRAM [LIBRARIES_OBJECT]
    $CC $CFLAGS -o "$2" "$work"/*.oracle.o "${3:-$work/libraries.o}" "$1" $LOGSHIP_LIBS >"$work/out" 2>&1 ||
        die "the oracle does not link"
}

compile_plain "$work/plain_as_is.o"
rename "$work/plain_as_is.o" "$work/plain.o"

# No name that plain C has itself, or that the course has, is asked for under its old name ...
cut -d' ' -f1 "$work/names" | sort >"$work/defined"
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
# shellcheck disable=SC2086
TMPDIR=$work $TEST_RUNNER "$work/oracle" "$@" 2>"$work/err" || {
    echo "the end of what the libraries said:" >&2
    tail -n 20 "$work/err" >&2
    exit 1
}
[ $# -eq 0 ] || exit 0

# canary SUBJECT FILE SED: plain C with a mistake in one file. The subject must see it.
canary() {
    mkdir -p "$work/canary.d"
    cp "$work"/plain_as_is.o.d/*.o "$work/canary.d/"
    sed "$3" "$PLAIN/$2" >"$work/canary.c"
    cmp -s "$PLAIN/$2" "$work/canary.c" && die "canary: $3 finds nothing in $2"
    # shellcheck disable=SC2086
    $CC $PLAIN_FLAGS -c -I"$PLAIN/${2%/*}" $PLAIN_INCLUDE -o "$work/canary.d/$(basename "$2" .c).o" "$work/canary.c" \
        >"$work/out" 2>&1 || die "the canary does not compile: $2 with $3"
    ld -r -o "$work/canary.o" "$work"/canary.d/*.o
    rename "$work/canary.o" "$work/canary_renamed.o"
    link "$work/canary_renamed.o" "$work/canary"
    TMPDIR=$work "$work/canary" --only "$1" >"$work/out" 2>"$work/err"
    code=$?
    [ "$code" -eq 1 ] && grep -q 'again: --only' "$work/out" || die "canary not caught by $1 (exit $code): $2 with $3"
    printf 'canary %-18s caught: %s\n' "$1" "$2"
}
canary store w09/kv_store.c 's/entry->last_write_ts = ts;/entry->last_write_ts = ts > 1 ? ts - 1 : ts;/'
canary crc32 w10/crc32.c 's/i < len; i++/i < len - (len > 200); i++/'
canary codec w10/wal_record.c 's/\*out++ = record->op;/*out++ = (uint8_t)(record->op + 2);/'
canary codec-damage w10/wal_record.c 's/return buffer\[HEADER_BYTES\] == WAL_OP_SET ? 0 : -1;/return 0;/'
canary conflict w11/repl_conflict.c 's/strcmp(incoming_val, existing_val) > 0/strcmp(incoming_val, existing_val) >= 0/'
canary log w10/wal_recovery.c 's/return record->timestamp > existing->last_write_ts;/return 1;/'
canary log-damage w10/wal_writer.c 's/for (size_t start = 1; start + 8/for (size_t start = 99; start + 8/'
canary checkpoint w10/wal_checkpoint.c 's/write_le(file, wal_offset, 8);/write_le(file, wal_offset + 1, 8);/'
canary checkpoint-damage w10/wal_checkpoint.c 's/ || memcmp(bytes, "CKPT", 4) != 0)/)/'
canary arguments w10/wal_writer.c "s/path == NULL || path\[0\] == '.0')/path == NULL)/"
canary ship w11/repl_ship.c 's/return poll(&state, 1, 0) > 0;/return poll(\&state, 1, 0) > 9;/'
canary wire w11/repl_ship.c 's/memset(&ack, 0, sizeof ack);/memset(\&ack, 1, sizeof ack);/'
canary catch-up w11/repl_rejoin.c 's/number < lsn \&\& got/number + 1 < lsn \&\& got/'
canary heartbeat w11/repl_rejoin.c 's/        int rc = 1;/        int rc = 0;/'
canary quorum w11/repl_quorum.c 's|follower_count / 2 + 1|follower_count / 2 + (config->follower_count < 4)|'
canary reship w11/repl_quorum.c 's/SHIP_AGAIN_MAX = 3/SHIP_AGAIN_MAX = 4/'
canary receive w11/repl_ship.c 's/errno == EBADMSG ? CRC_MISMATCH/errno == EBADMSG \&\& len > 13 ? CRC_MISMATCH/'
canary cluster w11/repl_ship.c 's/incoming) == SKIP)/incoming) == SKIP + 2)/'

# And the oracle that compares logship with itself: no difference, but two libraries they are not.
# shellcheck disable=SC2086
$CC $CFLAGS $LOGSHIP_INCLUDE $SUBDIRS -DCANARY_ONE_LIBRARY -c -o "$work/one_library.o" "$here/oracle/libraries.c" \
    >"$work/out" 2>&1 || die "the canary of one library does not compile"
link "$work/plain.o" "$work/canary" "$work/one_library.o"
TMPDIR=$work "$work/canary" --only two-libraries >"$work/out" 2>&1
[ $? -eq 1 ] && grep -q 'shared_functions() == 0' "$work/out" || die "canary not caught: logship compared with itself"
echo "canary two-libraries      caught: logship compared with itself"
