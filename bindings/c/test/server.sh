#!/usr/bin/env bash
# An example, with the real host: allowed, host gone and back, its disk full, revoked. `server.sh <the server>`; $AUTONOMY and
# $FIXTURE are set.
set -euo pipefail
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"
AUTONOMY_NODE_ID=robot-7 "$1" 0 "$url" "$token_file" "$FIXTURE/bundle.tar" "$FIXTURE/key.pem" > "$place/server.log" &
server=$!
port=
for _ in $(seq 600); do
  port=$(grep -o '[0-9]*$' "$place/server.log") && break
  sleep 0.1
done

# Sets status; the answer is in $place/answer, the audit id of what was allowed in $place/allowed.
post() {
  status=$(curl -s -X POST -d '{}' -o "$place/answer" -w '%{http_code}' "http://127.0.0.1:$port/move")
  if [ "$status" = 200 ]; then jq -r .audit_id "$place/answer" >> "$place/allowed"; fi
}

# <status> <jq filter that must hold of the answer>
asked() {
  post
  if [ "$status" != "$1" ] || ! jq -e "$2" "$place/answer" > /dev/null; then
    echo "error: found $status $(cat "$place/answer"), expected $1 $2" >&2
    exit 1
  fi
}

asked 200 '.output == "moved"'
allowed=$(cat "$place/allowed")

# The host goes away and comes back: the server, its gate and its guard go on.
for _ in 1 2; do
  kill -9 "$host"
  wait "$host" 2> /dev/null || true
  for _ in 1 2 3; do asked 503 '.reason == "audit: wal_unavailable"'; done
  serve
  asked 200 '.output == "moved"'
done

# The disk fills up, which ends the host.
kill "$host"
wait "$host" || true
serve 64
for calls in $(seq 1000); do
  post
  [ "$status" = 200 ] || break
done
[ "$calls" -gt 10 ]
[ "$status" = 503 ]
jq -e '.reason == "audit: wal_unavailable"' "$place/answer" > /dev/null
wait "$host" || true
grep -q 'ulimit -f' "$place/host.log"
asked 503 '.reason == "audit: wal_unavailable"'
serve
asked 200 '.output == "moved"'
"$AUTONOMY" wal verify > /dev/null
"$AUTONOMY" wal inspect --output json > "$place/frames"
while read -r one; do grep -q "$one" "$place/frames"; done < "$place/allowed"

"$AUTONOMY" node revoke --node-id robot-7 > /dev/null 2>&1
# The host may give an answer again for 200 ms.
sleep 0.4
asked 403 '.reason == "attestation: enrollment_revoked"'
# Written down: the decision and what the tool did.
"$AUTONOMY" audit get "$allowed" --output json > "$place/audit"
grep -q '"autonomy.action"' "$place/audit"
grep -q 'completed' "$place/audit"
kill "$server"
wait "$server"
echo "the server asked the host, was denied, and wrote it down: $(wc -l < "$place/allowed") moves"
