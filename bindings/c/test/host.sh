# Starts `autonomy host serve` in an empty directory, with robot-7 enrolled: sets place, url, token_file. Ends with the shell.
place=$(mktemp -d)
export AUTONOMY_HOME=$place
token_file=$place/host.token
address=127.0.0.1:0
"$AUTONOMY" host token --out "$token_file" > /dev/null
"$AUTONOMY" node enroll --node-id robot-7 --enrollment-ref "$(cat "$FIXTURE/enrollment_ref")" > /dev/null 2>&1
ended() {
  kill "$host" ${server:+"$server"} 2> /dev/null || true
  wait || true
  rm -rf "$place"
}
trap ended EXIT

# serve [<KiB>]: starts the host, where it was before. No file of it may grow beyond so many KiB, which is to it as a full disk.
serve() {
  # Here, and not beside the loop below: that would find the address of the host before.
  : > "$place/host.log"
  (
    if [ $# -gt 0 ]; then ulimit -f "$1"; fi
    exec "$AUTONOMY" host serve --listen "$address" --token-file "$token_file"
  ) >> "$place/host.log" 2>&1 &
  host=$!
  for _ in $(seq 600); do
    url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$place/host.log" | head -n 1) && break
    sleep 0.1
  done
  [ -n "$url" ] || { cat "$place/host.log" >&2; exit 1; }
  address=${url#http://}
}
serve
