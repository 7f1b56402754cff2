#!/bin/sh
# The headers as C99 to C23 and C++, in any order, and each alone. The environment is run_lessons.sh's.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
include=$here/../include
CC=${CC:-gcc}
CXX=${CXX:-g++}
flags="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I$include -I$include/w09 -I$include/w10 -I$include/w11"
failed=0
passed=0
check() {
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
for std in c99 c11 c17 c2x gnu17; do
    for order in 1 2 3 4 5; do
        check $CC -std=$std $flags -DHEADER_ORDER=$order "$here/own/header_forms.c"
    done
    for header in $(cd "$include" && find . -name '*.h'); do
        check $CC -std=$std $flags -include "$header" -x c /dev/null
    done
done
# shellcheck disable=SC2086
for std in c++11 c++17 c++20; do
    check $CXX -std=$std $flags "$here/own/cpp_headers.cpp"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
