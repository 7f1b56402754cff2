#!/bin/sh
# Makes what cargo has built into the static library: GENERIC_NAMES="..." finish_static.sh liblogship.a
#
# The functions of the headers become weak, so that a program's own win, and the lesson's plain `crc32` is added, in an
# object of its own (crc32.S). In this order: objcopy weakens uses of a name too, and the object's use of
# logship_crc32 must bring that into the program.
#
# Cargo links target/release/liblogship.a to a file under deps/ and makes the link anew in every build, so that file is
# written in place. It keeps its time, else cargo builds every test anew.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
archive=$1
# gcc's ar: the plain one loads whatever linker plugin is installed, and a clang's makes it lose symbols.
# Not piped to grep -q, which leaves early: an error to ar.
members=$(gcc-ar t "$archive")
case $members in *logship_crc32_name.o*) exit 0 ;; esac

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-static-XXXXXX")
trap 'rm -rf "$work"' EXIT
sed -n 's/^        \([a-z].*\);/\1/p' "$here/logship.map" >"$work/names"
# shellcheck disable=SC2086
printf '%s\n' $GENERIC_NAMES >>"$work/names"
objcopy --weaken-symbols="$work/names" "$archive" "$work/liblogship.a"
${CC:-gcc} -c -o "$work/logship_crc32_name.o" "$here/crc32.S"
gcc-ar rD "$work/liblogship.a" "$work/logship_crc32_name.o"
touch -r "$archive" "$work/time"
cat "$work/liblogship.a" >"$archive"
touch -r "$work/time" "$archive"
