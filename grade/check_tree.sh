#!/bin/sh
# Runs the checks of the kit against a tree of course files: check_tree.sh DIR [PROGRAM...]
#
# DIR holds the eleven .c files, in w09/ w10/ w11/ or flat; "-" is none at all: the library alone. Without programs: all
# of checks/*.c. From the environment: LIBS, what stands behind the tree's files in the link (its course functions must
# be weak); ONLY, the name of one file, which is then judged alone (file + reference); CHECK, one check's id; RUNNER,
# what each check runs under; CFLAGS, for all of it, and STUDENT_FLAGS, for the tree's files. One line a check; the exit
# code is 0 if all passed. `logship grade` is the real thing: this one tries checks out while they are written, and has
# no limits but the clock.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
CC=${CC:-gcc}
CFLAGS=${CFLAGS:--std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g}
LIBS=${LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
RUNNER=${RUNNER:-}
ONLY=${ONLY:-}
CHECK=${CHECK:-}
tree=${1:?usage: check_tree.sh DIR [PROGRAM...]}
shift
[ "$tree" = - ] || tree=$(CDPATH='' cd -- "$tree" && pwd) || exit 2
[ $# -gt 0 ] || set -- "$here"/checks/*.c

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-checks-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ours="-I$root/include -I$root/include/w09 -I$root/include/w10 -I$root/include/w11"
theirs=
for dir in include include/w09 include/w10 include/w11 . w09 w10 w11; do
    [ -d "$tree/$dir" ] && theirs="$theirs -I$tree/$dir"
done

objects=
if [ "$tree" != - ]; then
    for name in kv_store crc32 wal_record wal_writer wal_recovery wal_checkpoint repl_config repl_ship repl_quorum \
        repl_conflict repl_rejoin; do
        [ -z "$ONLY" ] || [ "$ONLY" = "$name.c" ] || continue
        for source in "$tree/$name.c" "$tree"/w*/"$name.c"; do
            [ -f "$source" ] || continue
            # The variables hold several words each, so they are left unquoted.
            # shellcheck disable=SC2086
            $CC $CFLAGS $theirs $ours ${STUDENT_FLAGS:-} -c -o "$work/$name.o" "$source" || exit 2
            objects="$objects $work/$name.o"
        done
    done
fi

failed=0
tab=$(printf '\t')
# judge PROGRAM ID REQUIREMENT SECONDS
judge() {
    dir=$work/run
    rm -rf "$dir" "$work/result"
    mkdir "$dir"
    # shellcheck disable=SC2086
    (cd "$dir" && LOGSHIP_RESULT=$work/result timeout -k 1 "$4" $RUNNER "$1" "$2") >"$work/out" 2>&1
    status=$?
    verdict=$(grep -v '^NOTE' "$work/result" 2>/dev/null | head -n 1)
    case $status:$verdict in
    0:PASS) printf '%-34s %-8s PASS\n' "$2" "$3"; return ;;
    *:FAIL*) ;;
    124:* | 137:*) verdict="FAIL${tab}time${tab}it ends within $4 s${tab}it ran on" ;;
    *) verdict="FAIL${tab}the program${tab}exit code 0${tab}$status" ;;
    esac
    failed=$((failed + 1))
    printf '%-34s %-8s FAIL %s\n' "$2" "$3" \
        "$(printf '%s' "$verdict" | awk -F '\t' '{ print $2 ": expected " $3 ", seen " $4 }')"
    [ -z "${SHOW_OUTPUT:-}" ] || cat "$work/out"
}

for source in "$@"; do
    program=$work/$(basename "$source" .c)
    # shellcheck disable=SC2086
    $CC $CFLAGS $ours -o "$program" "$source" $objects $LIBS || { failed=$((failed + 1)); continue; }
    "$program" --list >"$work/list" || exit 2
    while IFS=$tab read -r id requirement _ files seconds _; do
        [ -z "$CHECK" ] || [ "$CHECK" = "$id" ] || continue
        if [ -n "$ONLY" ]; then
            case ",$files," in *",$ONLY,"*) ;; *) continue ;; esac
        fi
        [ -z "$RUNNER" ] || seconds=$((seconds * 10))
        judge "$program" "$id" "$requirement" "$seconds" </dev/null
    done <"$work/list"
done
[ "$failed" -eq 0 ]
