# Starts `autonomy host serve` in an empty directory, with robot-7 enrolled: sets place, url, token_file. Ends with the shell.
place=$(mktemp -d)
export AUTONOMY_HOME=$place
token_file=$place/host.token
"$AUTONOMY" host token --out "$token_file" > /dev/null
"$AUTONOMY" node enroll --node-id robot-7 --enrollment-ref "$(cat "$FIXTURE/enrollment_ref")" > /dev/null 2>&1
"$AUTONOMY" host serve --listen 127.0.0.1:0 --token-file "$token_file" > "$place/host.log" 2>&1 &
host=$!
ended() {
  kill "$host" ${server:+"$server"} 2> /dev/null || true
  wait || true
  rm -rf "$place"
}
trap ended EXIT
url=
for _ in $(seq 100); do
  url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$place/host.log" | head -n 1) && break
  sleep 0.1
done
[ -n "$url" ] || { cat "$place/host.log" >&2; exit 1; }
