#!/usr/bin/env bash
# The example, with the real host: allowed, revoked, host gone. `server.sh <the server>`; $AUTONOMY and $FIXTURE are set.
set -euo pipefail
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"
AUTONOMY_NODE_ID=robot-7 "$1" 0 "$url" "$token_file" "$FIXTURE/bundle.tar" "$FIXTURE/key.pem" > "$place/server.log" &
server=$!
port=
for _ in $(seq 100); do
  port=$(grep -o '[0-9]*$' "$place/server.log") && break
  sleep 0.1
done

# <status> <jq filter that must hold of the answer>
asked() {
  local status
  status=$(curl -s -X POST -d '{}' -o "$place/answer" -w '%{http_code}' "http://127.0.0.1:$port/move")
  if [ "$status" != "$1" ] || ! jq -e "$2" "$place/answer" > /dev/null; then
    echo "error: found $status $(cat "$place/answer"), expected $1 $2" >&2
    exit 1
  fi
}

asked 200 '.output == "moved"'
allowed=$(jq -r .audit_id "$place/answer")
"$AUTONOMY" node revoke --node-id robot-7 > /dev/null 2>&1
# The host may give an answer again for 200 ms.
sleep 0.4
asked 403 '.reason == "attestation: enrollment_revoked"'
kill "$host"
wait "$host" || true
asked 503 '.reason == "audit: wal_unavailable"'
# Written down: the decision and what the tool did.
"$AUTONOMY" audit get "$allowed" --output json > "$place/audit"
grep -q '"autonomy.action"' "$place/audit"
grep -q 'completed' "$place/audit"
kill "$server"
wait "$server"
echo "the server asked the host, was denied, and wrote it down"
