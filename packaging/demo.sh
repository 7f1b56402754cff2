#!/usr/bin/env bash
# What `make demo` shows once the library is built: demo.sh DIR, with CC and LOGSHIP_LIBS in the environment.
#
# The lesson's rejoin program runs in place: its seven lines. The README's programs are taken out of the README, built
# into DIR and left there, for the three commands that are named then. With --programs that is all.
set -eu
programs_only=
if [ "$1" = --programs ]; then
    programs_only=yes
    shift
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
CC=${CC:-gcc}
FLAGS="-std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -O2 -Iinclude"

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
if [ -z "$programs_only" ]; then
    $CC $FLAGS -o "$dir/repl_rejoin_test" c_tests/w11/repl_rejoin_test.c $LOGSHIP_LIBS
    "$dir/repl_rejoin_test" 2>/dev/null
fi

# A block of C begins with the name of its file.
awk -v dir="$dir" '
    /^```c$/ { inside = 1; path = ""; next }
    /^```$/ { inside = 0 }
    inside && path == "" { path = dir "/" $2 }
    inside { print >path }
' README.md
for name in leader follower; do
    # shellcheck disable=SC2086
    $CC $FLAGS -o "$dir/$name" "$dir/$name.c" $LOGSHIP_LIBS
done
[ -z "$programs_only" ] || exit 0
shown=$(realpath --relative-base=. "$dir")
cat <<END

Next, the README's own leader and two followers, each in a terminal of its own:
    cd $shown && ./leader           # then type, say, city=oslo
    cd $shown && ./follower 1
    cd $shown && ./follower 2       # end it with Ctrl-C, type more, start it again
END
