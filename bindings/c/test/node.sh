#!/usr/bin/env bash
# The README's program of a node, with the real host: allowed, then revoked. `node.sh <source>`; $AUTONOMY and $FIXTURE are set,
# and pkg-config finds the library.
set -euo pipefail
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"
sed "s|http://127.0.0.1:7778|$url|" "$1" > "$place/node.c"
cp "$FIXTURE/bundle.tar" "$place/bundle.tar"
cp "$FIXTURE/key.pem" "$place/release.pub.pem"
cd "$place"
# shellcheck disable=SC2046
cc -std=c11 -Wall -Wextra -Werror -fsanitize=address node.c $(pkg-config --cflags --libs autonomy_gate) -o node

# <exit code> <what it prints, as a pattern>
said() {
  code=0
  AUTONOMY_NODE_ID=robot-7 ./node > said || code=$?
  if [ "$code" != "$1" ] || ! grep -qx "$2" said; then
    echo "error: it ended with $code and said $(cat said), expected $1 and $2" >&2
    exit 1
  fi
}

said 0 'the decision is on disk: the tool may run, once [0-9a-f-]*'
"$AUTONOMY" audit get "$(grep -o '[^ ]*$' said)" > frames
grep -q 'arm\.move' frames
grep -q 'completed' frames
"$AUTONOMY" node revoke --node-id robot-7 > /dev/null 2>&1
# The host may give an answer again for 200 ms.
sleep 0.4
said 1 '403 {"decision":"deny","reason":"attestation: enrollment_revoked",.*}'
