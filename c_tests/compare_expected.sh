#!/bin/sh
# Compares what a program printed with what it must print: compare_expected.sh NAME <output
#
# expected/NAME.txt is literal: the output must be the same, byte for byte.
# expected/NAME.re has one extended regular expression a line, anchored at both ends: line n of the output must match line
# n of the file, and there must be as many lines.
# The exit code is 0 if they agree; if not it is 1, and stderr says where they differ. 2: there is nothing to compare with.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
name=${1:?usage: compare_expected.sh NAME <output}
literal=$here/expected/$name.txt
patterns=$here/expected/$name.re

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-compare-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
cat >"$work/actual"

if [ -f "$literal" ]; then
    diff -u "$literal" "$work/actual" >&2 || exit 1
    exit 0
fi
if [ ! -f "$patterns" ]; then
    echo "compare_expected.sh: no expected output for $name" >&2
    exit 2
fi

# wc counts line ends, so a last line without one shows as a missing line.
want=$(wc -l <"$patterns")
got=$(wc -l <"$work/actual")
if [ "$want" -ne "$got" ]; then
    echo "$name: $got lines, expected $want" >&2
    exit 1
fi
exec 3<"$patterns"
number=0
while IFS= read -r line; do
    number=$((number + 1))
    IFS= read -r pattern <&3
    if ! printf '%s\n' "$line" | grep -Eqx -e "$pattern"; then
        printf '%s, line %d: %s\n  does not match: %s\n' "$name" "$number" "$line" "$pattern" >&2
        exit 1
    fi
done <"$work/actual"
