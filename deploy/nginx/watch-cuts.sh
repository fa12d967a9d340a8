#!/bin/sh
# Cuts downloads at the edge. Once nginx sends a file by itself, nobody else can stop it, so twice a
# second this asks the web process for its count of cuts. When the count has moved, somebody who
# is being sent bytes may no longer have them: nginx reloads, and every old connection ends within
# worker_shutdown_timeout (1.5 s). Others continue by range; the one cut is refused on asking again.
# When nobody answers for BLIND polls, the same: what cannot be checked is not delivered.
set -eu

: "${EDGE_UPSTREAM:?}" "${EDGE_SECRET_FILE:?}" "${EDGE_CONF:?}" "${EDGE_LOG:?}"
POLL=0.5
BLIND=2                      # failed polls in a row before everything is cut, and between cuts
ROTATE_BYTES=67108864

say() {
    printf '{"event":"%s","level":"%s"}\n' "$1" "$2" >&2
}

# Print the count, or fail. The secret goes in by standard input: arguments can be seen by others.
count() {
    printf 'header = "X-Stagerelease-Edge: %s"\n' "$(cat "$EDGE_SECRET_FILE")" |
        curl --config - --silent --fail --max-time 1 --noproxy '*' \
            "http://$EDGE_UPSTREAM/internal/cuts"
}

cut_all() {
    if ! nginx -e stderr -c "$EDGE_CONF" -s reload; then
        say "nginx would not reload; it is stopped instead, so that nothing flows unchecked" error
        nginx -e stderr -c "$EDGE_CONF" -s stop || true
        exit 1
    fi
}

rotate() {
    size=$(wc -c < "$EDGE_LOG" 2>/dev/null || echo 0)
    [ "$size" -gt "$ROTATE_BYTES" ] || return 0
    [ ! -e "$EDGE_LOG.1" ] || mv -f "$EDGE_LOG.1" "$EDGE_LOG.2"
    mv -f "$EDGE_LOG" "$EDGE_LOG.1"
    nginx -e stderr -c "$EDGE_CONF" -s reopen || true
}

last=
missed=0
while :; do
    if now=$(count) && case $now in '' | *[!0-9]*) false ;; esac; then
        # A first count is no change: nginx has only just started. After a poll that failed it is
        # one: that poll may have moved the count before its answer was lost.
        if [ "$now" != "${last:-$now}" ] || { [ -z "$last" ] && [ "$missed" -gt 0 ]; }; then
            say "cutting: the count of cuts is $now" info
            cut_all
        fi
        last=$now
        missed=0
    else
        missed=$((missed + 1))
        if [ $((missed % BLIND)) -eq 0 ]; then
            say "cutting: the web process did not answer $missed times" warning
            cut_all
        fi
    fi
    rotate
    sleep "$POLL"
done
