#!/usr/bin/env bash
# The README's program of a node, with the real host. `node.sh <source>`; $FLAGS compile it, $AUTONOMY and $FIXTURE are set.
set -euo pipefail
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"
sed "s|http://127.0.0.1:7778|$url|" "$1" > "$place/node.c"
# shellcheck disable=SC2086
cc -std=c11 -Wall -Wextra -Werror "$place/node.c" $FLAGS -o "$place/node"
cd "$place"
said=$(./node || true)
if [ "$said" != "the call is denied: attestation: bundle_unverified" ]; then
  echo "error: it said $said" >&2
  exit 1
fi
"$AUTONOMY" audit list | grep -q 'arm\.move'
