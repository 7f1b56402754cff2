#!/bin/sh
# The benchmark: run_bench.sh [SUBJECT...]   (`make bench` builds the library first and runs all subjects)
#
# Builds c_tests/bench twice, against logship and against the course's functions in plain C, runs both side by side,
# RUNS times (5), the order changing from run to run, and prints one table of medians. It judges no figure: the exit
# code is 0 if every subject ran.
#
#   RUNS=1            how many runs
#   BENCH_DIR=/mnt/x  the file system to measure (else $TMPDIR, else /tmp); nothing is left there
#   BENCH_RECORDS=n   instead of 1,000,000 records and keys
#   BENCH_RUST=0      leave the Rust codec out (it needs cargo)
#   LOGSHIP_LIBS      what to link logship with, as for run_lessons.sh
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CARGO=${CARGO:-cargo}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O2}
LOGSHIP_INCLUDE=${LOGSHIP_INCLUDE:--I$root/include}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
RUNS=${RUNS:-5}
BENCH_RUST=${BENCH_RUST:-1}
BENCH_DIR=${BENCH_DIR:-${TMPDIR:-/tmp}}
export BENCH_DIR

case $RUNS in '' | *[!0-9]* | 0) echo "run_bench.sh: RUNS is a number from 1 on" >&2; exit 2 ;; esac
work=$(mktemp -d "$BENCH_DIR/logship-run-bench-XXXXXX") || exit 1
child=
# The benchmark's own processes and files are its own affair: it is asked to end, and waited for.
finish() {
    trap '' INT TERM
    if [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
$CC $CFLAGS $LOGSHIP_INCLUDE -o "$work/logship" "$here"/bench.c "$here"/bench/*.c $LOGSHIP_LIBS || exit 1
# A table of its own size: the plain one never grows.
# shellcheck disable=SC2086
$CC $CFLAGS -DPLAIN_C -DKV_BUCKETS=1000003 -I"$here/plain_c/include" -I"$here/plain_c" -o "$work/plain" \
    "$here"/bench.c "$here"/bench/*.c "$here"/plain_c/w*/*.c -lpthread || exit 1

if [ "$BENCH_RUST" = 1 ]; then
    (cd "$root" && $CARGO bench --quiet --no-run --bench codec) || exit 1
fi

# run WHICH SUBJECT: its figures go to $work/WHICH.figures.
run() {
    "$work/$1" "$2" >>"$work/$1.figures" &
    child=$!
    wait "$child" || { child=; echo "run_bench.sh: $2 against $1 failed" >&2; exit 1; }
    child=
}

# The machine has no other side, and plain C none of what comes back.
has_plain() {
    [ "$1" != probe ] && [ "$1" != rejoin ]
}

# The Rust codec's median, from divan's table: the line after the one with the name, third column.
run_rust() {
    (cd "$root" && $CARGO bench --quiet --bench codec -- encode_decode) >"$work/rust" 2>"$work/rust.err" || {
        cat "$work/rust.err" >&2
        echo "run_bench.sh: cargo bench --bench codec failed" >&2
        exit 1
    }
    awk -F '│' '
        found {
            split($3, words, " ")
            unit = substr(words[2], 1, 1)
            print "rust.encode+decode", words[1] * (unit == "G" ? 1000 : unit == "K" ? 0.001 : 1), "M/s"
            exit
        }
        /encode_decode/ { found = 1 }' "$work/rust" >>"$work/logship.figures"
}

: >"$work/logship.figures"
: >"$work/plain.figures"
subjects=${*:-probe crc32 codec store store_cold append recover recover_cold quorum catch_up rejoin}
turn=0
while [ "$turn" -lt "$RUNS" ]; do
    turn=$((turn + 1))
    echo "run $turn of $RUNS" >&2
    for subject in $subjects; do
        if [ $((turn % 2)) -eq 1 ]; then
            run logship "$subject"
            has_plain "$subject" && run plain "$subject"
        else
            has_plain "$subject" && run plain "$subject"
            run logship "$subject"
        fi
        if [ "$subject" = codec ] && [ "$BENCH_RUST" = 1 ]; then run_rust; fi
    done
done

# name | what it says | + higher or - lower is better | least ratio | least | most | fsync
cat >"$work/rows" <<'ROWS'
probe.fsync_per_s|disk: append 64 bytes and fsync|+||||
probe.two_fsyncs|disk: two of these, one after the other|-||||
probe.round_trip|loopback TCP: 16 bytes there and back|-||||
probe.loopback_stream|loopback TCP: stream, 256 KiB sends|+||||
crc32.64KiB|crc32 of 64 KiB|+|10|10000||none
crc32.1MiB|crc32 of 1 MiB|+|10|10000||none
rust.encode+decode|encode + decode, Rust API, no copies|+||18||none
codec.encode+decode|encode + decode + free, C ABI|+|1.3|||none
codec.encode|encode, C ABI|+||||none
store.set_new|set of new keys|+|1.5|6.5||none
store.get_random|get, random order|+|1.5|5||none
store.get_random_and_read|get, random order, value read|+||||none
store.set_existing|set of keys that are there, random order|+||||none
store_cold.set_new|set of new keys, process just begun|+||||none
store_cold.get_random|get, random order, process just begun|+||||none
append.one|append, one at a time|+||||1 a record
append.one_fsync_alone|(the same disk at the same time, fsync only)|+||||1 a write
append.batch_100|append, batches of 100|+||||1 a batch
append.batch_1000|append, batches of 1,000|+||||1 a batch
recover.16B|recover, 16-byte values|+||7||none (page cache)
recover.100B|recover, 100-byte values|+||||none (page cache)
recover_cold.16B|recover, 16-byte values, process just begun|+||||none (page cache)
quorum.commits_per_s|quorum commits, one at a time|+||||1 a record on all 3 nodes
quorum.commit_median|quorum commit, median|-||||1 a record on all 3 nodes
quorum.two_fsyncs|(two fsyncs one after the other, same time)|-||||
quorum.round_trip|(one loopback round trip, same time)|-||||
quorum.bare_commit|(the same with no library, same time)|-||||
quorum.commit_over_bare|commit / the same with no library|-||||
quorum.commit_over_floor|commit / (two fsyncs + one round trip)|-|||1.25|1 a record on all 3 nodes
catch_up.all_counted_sent|catch-up of all, bytes counted: sent|-||||none
catch_up.all_counted_acked|catch-up of all, bytes counted: received|-||||none
catch_up.last_1000_counted_sent|catch-up of the last 1,000, counted: sent|-||||none
catch_up.last_1000_counted_acked|catch-up of the last 1,000, counted: received|-||||none
catch_up.last_1000_stored_sent|catch-up of the last 1,000, stored: sent|-||||none on the leader
catch_up.last_1000_stored_acked|catch-up of the last 1,000, stored: last ack|-||||1 a record on the follower
rejoin.all_stored_acked|catch-up of all, stored and applied: last ack|-|||280|1 for what arrived together
rejoin.leader_memory|(the leader's memory grew by)|-|||8|
rejoin.follower_memory|(the follower's memory above its store, at most)|-|||16|
rejoin.snapshot_acked|snapshot of all keys and 1,000 records more|-|||600|the checkpoint, then as above
rejoin.snapshot_follower_memory|(the follower's memory above its store, at most)|-|||16|
rejoin.open_long_indexed|open a log ten times as long, indexed|-|||10|none
rejoin.open_long_read|the same without its index|+||2.5||none
rejoin.last_1000_of_long_sent|its last 1,000: last byte sent|-|||0.1|none on the leader
rejoin.last_1000_of_long_returned|its last 1,000: repl_catch_up has returned|-||||none on the leader
rejoin.last_1000_of_long_acked|its last 1,000, stored: last ack|-|||3|1 for what arrived together
rejoin.last_1000_of_long_from_start|the follower's process start, open, rejoin and these|-|||100|1 for what arrived together
rejoin.commit_p99|commit, p99, two of three followers|-||||1 a record on all nodes
rejoin.commit_p99_beside|the same while the third catches up with all|-||||1 a record on all nodes
rejoin.commit_p99_ratio|the second over the first|-|||3|
ROWS

echo
echo "$(uname -m), $(getconf _NPROCESSORS_ONLN) processors, files in $BENCH_DIR, medians of $RUNS runs," \
    "${BENCH_RECORDS:-1000000} records and keys"
echo
awk -F '|' -v logship="$work/logship.figures" -v plain="$work/plain.figures" '
# The median, by insertion sort: a handful of values.
function middle(list,    values, count, i, j, kept) {
    count = split(list, values, " ")
    for (i = 2; i <= count; i++) {
        kept = values[i] + 0
        for (j = i - 1; j >= 1 && values[j] + 0 > kept; j--) values[j + 1] = values[j]
        values[j + 1] = kept
    }
    return (values[int((count + 1) / 2)] + values[int(count / 2) + 1]) / 2
}
function load(file, figures,    line, words) {
    while ((getline line < file) > 0) {
        split(line, words, " ")
        figures[words[1]] = figures[words[1]] " " words[2]
        units[words[1]] = words[3]
    }
}
function shown(value) { return sprintf(value >= 1000 ? "%.0f" : value >= 100 ? "%.1f" : "%.2f", value) }
function join(left, right) { return left == "" ? right : left ", " right }
# Judges `value` against one bound of a row; "" is none.
function bound(sign, limit, suffix, value) {
    if (limit == "") return
    target = join(target, sign " " limit suffix)
    if (sign == ">=" ? value < limit + 0 : value > limit + 0) verdict = "MISSED"
    else if (verdict == "") verdict = "reached"
}
BEGIN {
    load(logship, ours)
    load(plain, theirs)
    format = "%-48s %10s %10s %-5s %8s  %-18s %-8s %s\n"
    printf format, "subject", "logship", "plain C", "", "ratio", "target", "", "fsync"
}
$1 in ours {
    a = middle(ours[$1])
    b = ratio = ""
    target = verdict = ""
    if ($1 in theirs) {
        b = middle(theirs[$1])
        ratio = $3 == "+" ? a / b : b / a
        bound(">=", $4, "x", ratio)
    }
    bound(">=", $5, "", a)
    bound("<=", $6, "", a)
    b = b == "" ? "-" : shown(b)
    ratio = ratio == "" ? "-" : shown(ratio) "x"
    printf format, $2, shown(a), b, units[$1], ratio, target, verdict, $7
}' "$work/rows"

# Found with perf, by subject; look again when the code changes.
[ $# -gt 0 ] || cat <<'LIMITS'

What limits each:
  crc32      carry-less multiplication of a buffer that the caches hold
  codec      the CRC of 49 bytes, twice; through C then malloc and free of two strings
  store      set of new keys: the kernel, which zeroes the table's pages; get: one cache miss for the key's chain
  append     the disk: all but a few microseconds of a call is fsync; batches of 1,000: copying into the page cache
  recover    the kernel, which zeroes the table's pages, then the CRC of each record
  quorum     the disk: the leader's fsync, then both followers' fsyncs at the same time on the same disk (see "the same
             with no library"), and three processes on the processors there are; the rest is system calls
             (while others keep the disk busy, fsyncs at the same time share a journal commit and the ratio to two fsyncs
             falls below 1: look at "the same with no library" then)
  catch-up   counted: the kernel's copies in and out of the socket and the CRC of each record; stored: the follower's
             fsync of every record
LIMITS
