#!/usr/bin/env bash
# The benchmark, with the real host for the durable part. `bench.sh <the program>`; $AUTONOMY and $FIXTURE are set.
set -euo pipefail
# shellcheck source=../test/host.sh
. "$(dirname "$0")/../test/host.sh"
"$1" "$FIXTURE/bundle.tar" "$FIXTURE/key.pem" "$url" "$token_file"
