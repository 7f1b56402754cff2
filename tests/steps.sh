# Steps of a gate, for bash to source: each is shown with the time it took, counted, and named in the end if it failed.
#
#   step NAME COMMAND...   runs it; its output is kept, and its end shown if it fails
#   left WHAT              says in the end that WHAT was left out
#   summary                the end: what failed, what was left out, and one line of counts; 1 if anything failed
#
# Several chains of steps may run side by side, each in a subshell: (step ...; step ...) & and then `wait`. What a step
# counts for stands in its output: cargo's `test result:` lines, else the last line of the form `N passed, N failed`
# (and maybe `, N skipped`), else its exit status alone. Nothing is skipped in silence: cargo's ignored tests are left out
# with their reasons, and lines of a script that begin with SKIPPED too.
steps=$(mktemp -d "${TMPDIR:-/tmp}/logship-steps-XXXXXX") || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$steps"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# counts OUTPUT STATUS: passed, failed, skipped.
counts() {
    awk -v status="$2" '
        /^test result: / { cargo = 1; passed += $4; failed += $6; skipped += $8 }
        !cargo && /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { script = 1; passed = $1; failed = $3; skipped = $5 }
        END {
            if (!cargo && !script) passed = status == 0
            if (status != 0 && failed == 0) failed = 1
            print passed + 0, failed + 0, skipped + 0
        }' "$1"
}

step() {
    local name=$1 output status begin=$SECONDS passed failed skipped end=ok
    shift
    output=$(mktemp "$steps/output-XXXXXX")
    echo "     $name ..."
    "$@" >"$output" 2>&1 </dev/null
    status=$?
    read -r passed failed skipped < <(counts "$output" "$status")
    echo "$passed $failed $skipped" >"$output.counts"
    sed -n 's/^test \(.*\) \.\.\. ignored, \(.*\)$/left out: \1: \2/p; s/^ *SKIPPED:* *\(.*\)$/left out: \1/p' \
        "$output" >>"$steps/left"
    if [ "$failed" -gt 0 ]; then
        end=FAILED
        echo "$name" >"$output.failed"
        tail -n 60 "$output" | sed 's/^/    | /'
    fi
    printf '%-6s %s: %d s, %d passed, %d failed%s\n' "$end" "$name" $((SECONDS - begin)) "$passed" "$failed" \
        "$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
    [ "$failed" -eq 0 ]
}

left() {
    echo "left out: $*" >>"$steps/left"
}

summary() {
    local name
    for name in "$steps"/*.failed; do
        [ -e "$name" ] && echo "FAILED: $(cat "$name")"
    done
    [ ! -e "$steps/left" ] || sort -u "$steps/left"
    cat "$steps"/*.counts | awk '
        { passed += $1; failed += $2; skipped += $3 }
        END {
            printf "%d passed, %d failed", passed, failed
            if (skipped) printf ", %d skipped", skipped
            print ""
            exit failed > 0 || passed == 0
        }'
}
