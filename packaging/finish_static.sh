#!/bin/sh
# Makes the functions of the headers weak in what cargo has built, so that a program's own win:
# GENERIC_NAMES="..." finish_static.sh liblogship.a
#
# Not in the object of the lesson's plain `crc32` (crc32.S): objcopy weakens uses of a name too, and that object's use
# of logship_crc32 must bring it into the program.
#
# Cargo links target/release/liblogship.a to a file under deps/ and makes the link anew in every build, so that file is
# written in place. It keeps its time, else cargo builds every test anew.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
archive=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/logship-static-XXXXXX")
trap 'rm -rf "$work"' EXIT
# gcc's ar, nm and so on: the plain ones load whatever linker plugin is installed, and a clang's makes them lose symbols.
gcc-ar t "$archive" >"$work/members"
grep -qx 'logship_is_weak.o' "$work/members" && exit 0
crc32=$(grep -x '[0-9a-f]*-crc32\.o' "$work/members")
sed -n 's/^        \([a-z].*\);/\1/p' "$here/logship.map" >"$work/names"
# shellcheck disable=SC2086
printf '%s\n' $GENERIC_NAMES >>"$work/names"
cp "$archive" "$work/plain.a"
(cd "$work" && gcc-ar x plain.a "$crc32")
objcopy --weaken-symbols="$work/names" "$archive" "$work/liblogship.a"
# An empty object, the mark of what is done already.
printf '.section .note.GNU-stack, "", @progbits\n' | ${CC:-gcc} -c -x assembler -o "$work/logship_is_weak.o" -
(cd "$work" && gcc-ar rD liblogship.a "$crc32" logship_is_weak.o)
touch -r "$archive" "$work/time"
cat "$work/liblogship.a" >"$archive"
touch -r "$work/time" "$archive"
