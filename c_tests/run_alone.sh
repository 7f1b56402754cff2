#!/bin/sh
# Each function of the lessons' headers, alone in a program that has all the others from the library: which of them does
# the library call? docs/linking.md must say the same, so that none is forgotten. Then functions of a program's own that
# leave their work to others of the library's, which must not call them back for ever.
# The environment is run_lessons.sh's. LOGSHIP_LIBS must be the static library, its functions weak (make lib).
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
INCLUDE="-I$root/include -I$root/include/w09 -I$root/include/w10 -I$root/include/w11"
archive=${LOGSHIP_LIBS%% *}

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-alone-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The library with a second name for each function, and the program that calls only those.
(cd "$work" && gcc-ar x "$archive" logship.o) || exit 1
objcopy --strip-debug "$work/logship.o" || exit 1
nm -g --defined-only "$work/logship.o" | sed -n 's/.* W //p' >"$work/functions"
: >"$work/lessons"
while read -r name; do
    ! grep -v '^ \*' "$root"/include/w*/*.h | grep -q "\<$name(" || echo "$name" >>"$work/lessons"
done <"$work/functions"
[ "$(wc -l <"$work/lessons")" -gt 40 ] || { echo "the headers' functions were not found" >&2; exit 1; }
# shellcheck disable=SC2046
ld.bfd -r $(sed 's/\(.*\)/--defsym real_\1=\1/' "$work/functions") -o "$work/twice.o" "$work/logship.o" || exit 1
sed 's/\(.*\)/\1 real_\1/' "$work/functions" >"$work/renames"
# shellcheck disable=SC2086
$CC $CFLAGS $INCLUDE -c -o "$work/reach.o" "$here/replaced/reach.c" || exit 1
objcopy --rename-section .text=reach_text --redefine-syms="$work/renames" "$work/reach.o" || exit 1

failed=0
passed=0
: >"$work/reached"
while read -r name; do
    if $CC -O1 -DNAME="$name" -c -o "$work/own.o" "$here/replaced/alone.c" &&
        $CC -o "$work/program" "$work/own.o" "$work/reach.o" "$work/twice.o" -lpthread -ldl -lm &&
        timeout 60 "$work/program" >>"$work/reached" 2>"$work/said"; then
        passed=$((passed + 1))
    else
        echo "FAILED: own $name" >&2
        cat "$work/said" >&2
        failed=$((failed + 1))
    fi
done <"$work/lessons"
sort -o "$work/reached" "$work/reached"
sed -n '/^| logship calls yours/s/`/\n/gp' "$root/docs/linking.md" | grep -x '[a-z0-9_]*' | sort >"$work/documented"
sed -n '/^| only your program calls/s/`/\n/gp' "$root/docs/linking.md" | grep -x '[a-z0-9_]*' >"$work/others"
sort -u "$work/documented" "$work/others" | comm -3 - "$work/lessons" >"$work/forgotten"
if ! diff "$work/documented" "$work/reached" >&2 || [ -s "$work/forgotten" ]; then
    echo "FAILED: docs/linking.md says otherwise which functions the library calls (<), or forgets one:" >&2
    cat "$work/forgotten" >&2
    failed=$((failed + 1))
else
    passed=$((passed + 1))
fi

# shellcheck disable=SC2086
if $CC $CFLAGS $INCLUDE -o "$work/delegates" "$here/replaced/delegates.c" $LOGSHIP_LIBS &&
    (cd "$work" && timeout 60 ./delegates) >"$work/said" 2>&1; then
    passed=$((passed + 1))
else
    echo "FAILED: functions that leave their work to others" >&2
    tail -n 5 "$work/said" >&2
    failed=$((failed + 1))
fi
echo "own functions alone: $(wc -l <"$work/reached") of $(wc -l <"$work/lessons") are called by the library"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
