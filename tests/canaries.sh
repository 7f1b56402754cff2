#!/usr/bin/env bash
# Builds logship with one mistake at a time and fails unless the test that is there for it notices.
set -u
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
TARGET=${TARGET:-target}
missed=0
seen=0

# build NAME COMMAND...: compiles with the mistake; one that does not compile would look like one that was noticed.
build() {
    local name=$1
    shift
    export RUSTFLAGS="--cfg logship_canary_$name" CARGO_TARGET_DIR="$TARGET/canary-$name"
    "$CARGO" "$@" || { echo "canary $name: it does not build" >&2; exit 1; }
}

# noticed NAME BY OUTPUT STATUS WORDS: it must have failed, and for this reason.
noticed() {
    local name=$1 by=$2 output=$3 status=$4 words=$5
    if [ "$status" -ne 0 ] && grep -q -- "$words" <<<"$output"; then
        echo "canary $name: noticed by $by"
        seen=$((seen + 1))
    else
        echo "canary $name: NOT noticed by $by (status $status)" >&2
        tail -n 20 <<<"$output" >&2
        missed=$((missed + 1))
    fi
}

# by_test NAME FILE TEST: that test fails.
by_test() {
    local name=$1 file=$2 test=$3 output
    build "$name" test --quiet --no-run --test "$file"
    output=$("$CARGO" test --quiet --test "$file" -- --exact "$test" 2>&1)
    noticed "$name" "tests/$file.rs, $test" "$output" $? "test result: FAILED. 0 passed; 1 failed"
}

by_test ack_first group_receive no_ack_precedes_the_sync
by_test no_check cluster a_follower_with_another_past_is_refused_and_takes_nothing
by_test any_past checkpoint a_checkpoint_of_another_past_is_passed_over_for_the_whole_log

# The drill without what takes root: followers are killed, stopped, and come back with another leader's records.
build no_check build --quiet --example chaos
output=$("$CARGO_TARGET_DIR/debug/examples/chaos" --seconds 15 --seed 1 --local 2>&1)
noticed no_check "the drill" "$output" $? "WRONG: .*another past was not refused"
kept=$(sed -n "s/^the nodes' files and logs are in //p" <<<"$output")
[ -z "$kept" ] || rm -r "$kept"
echo "$seen passed, $missed failed"
[ "$missed" -eq 0 ]
