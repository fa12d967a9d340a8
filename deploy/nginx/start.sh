#!/bin/sh
# Runs the edge: renders the configuration, starts nginx, and watches for cuts beside it.
# Either of the two ending ends both: an edge whose watcher is gone could not cut a download.
set -eu
umask 027

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
: "${EDGE_UPSTREAM:?address and port of the web process, such as 127.0.0.1:8000}"
: "${EDGE_SECRET_FILE:?file with the secret that the web process expects from this edge}"
: "${EDGE_TLS_CERT:?certificate chain, PEM}"
: "${EDGE_TLS_KEY:?private key, PEM}"
: "${EDGE_BLOBS:=/blobs}"
: "${EDGE_LISTEN:=8443}"
: "${EDGE_RUN:=/tmp/edge}"
: "${EDGE_LOG:=/var/log/stagerelease/edge.log}"
: "${EDGE_ACCESS_LOG:=/dev/stdout}"
: "${EDGE_PREFIX:=/_weights/}"
: "${EDGE_WORKERS:=auto}"
export EDGE_UPSTREAM EDGE_SECRET_FILE EDGE_TLS_CERT EDGE_TLS_KEY EDGE_BLOBS EDGE_LISTEN EDGE_RUN \
    EDGE_LOG EDGE_ACCESS_LOG EDGE_PREFIX EDGE_WORKERS

mkdir -p "$EDGE_RUN"
EDGE_CONF=$EDGE_RUN/nginx.conf
export EDGE_CONF
# Only these names are filled in; nginx's own $variables stay.
# shellcheck disable=SC2016
envsubst '${EDGE_UPSTREAM} ${EDGE_TLS_CERT} ${EDGE_TLS_KEY} ${EDGE_BLOBS} ${EDGE_LISTEN} ${EDGE_RUN}
    ${EDGE_LOG} ${EDGE_ACCESS_LOG} ${EDGE_PREFIX} ${EDGE_WORKERS}' \
    < "$here/nginx.conf.template" > "$EDGE_CONF"
nginx -q -t -e stderr -c "$EDGE_CONF"

nginx -e stderr -c "$EDGE_CONF" -g 'daemon off;' &
nginx_pid=$!
"$here/watch-cuts.sh" &
watch_pid=$!

# QUIT lets nginx finish its answers, for worker_shutdown_timeout at most.
stop() {
    trap '' TERM INT
    kill -QUIT "$nginx_pid" 2>/dev/null || true
    kill "$watch_pid" 2>/dev/null || true
    wait "$nginx_pid" 2>/dev/null || true
    exit "$1"
}
trap 'stop 0' TERM INT

while kill -0 "$nginx_pid" 2>/dev/null && kill -0 "$watch_pid" 2>/dev/null; do
    sleep 1 &
    wait $! || true
done
echo '{"event":"nginx or its watcher ended; the edge stops","level":"error"}' >&2
stop 1
