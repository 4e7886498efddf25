#!/bin/sh
# A session by hand: enter the queue, boot, read the log, list the devices, log in, give everything back.
#
#     REMOTE_LAB_URL=http://lab-host:8000 examples/curl.sh
#
# Needs curl, ssh and python3, which only reads JSON here. REMOTE_LAB_TOKEN is sent where the server asks for one.
set -eu

LAB=${REMOTE_LAB_URL:-http://127.0.0.1:8000}
TOPOLOGY=${1:-$(dirname "$0")/ospf-pair.yml}
FOLDER=$(mktemp -d)

# The token goes to curl in a file that only you can read: everybody can read command lines.
printf '%s' "${REMOTE_LAB_TOKEN:+header = \"Authorization: Bearer $REMOTE_LAB_TOKEN\"}" > "$FOLDER/token"

# One field of the JSON in a file, named as Python names it.
field() { python3 -c "import json, sys; answer = json.load(sys.stdin); print(answer$2)" < "$FOLDER/$1"; }

# Every answer that is an error ends the script, and is shown.
call() { curl --config "$FOLDER/token" --silent --show-error --fail-with-body "$@"; }

# The same with the answer in a file. Not piped on: a pipe would lose that it is an error.
ask() { FILE=$FOLDER/$1; shift; call "$@" > "$FILE" || { STATUS=$?; cat "$FILE" >&2; exit "$STATUS"; }; }

# 1. Enter the queue. `purpose` is what those behind you are shown.
SESSION=
give_back() {
    [ -z "$SESSION" ] || call -X DELETE "$LAB/session/$SESSION" || true
    rm -rf "$FOLDER"
}
trap give_back EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ask session.json --json '{"purpose": "examples/curl.sh"}' "$LAB/session"
SESSION=$(field session.json '["session_id"]')

# 2. Wait for your turn. The server holds the call until something changes, 30 s at most.
while ask session.json "$LAB/session/$SESSION?wait=30"; [ "$(field session.json '["status"]')" != active ]; do
    echo "waiting" >&2
done

# 3. Boot. `respond-async` answers at once; then the state is asked for, which also says that you are alive.
ask lab.json -H "X-Session-ID: $SESSION" -H 'Prefer: respond-async' -F "topology=@$TOPOLOGY" "$LAB/lab"
STATE=$(field lab.json '.get("state") or "running"')
while [ "$STATE" = starting ]; do
    ask lab.json -H "X-Session-ID: $SESSION" "$LAB/lab?wait=30"
    STATE=$(field lab.json '["state"]')
    echo "$STATE" >&2
done

# 4. What netlab said, for a boot that failed and for the curious.
call -H "X-Session-ID: $SESSION" "$LAB/lab/log" >&2
[ "$STATE" = running ]

# 5. The devices, and the key of this lab to log in with.
ask devices.json -H "X-Session-ID: $SESSION" "$LAB/lab/devices"
(umask 077 && ask key -H "X-Session-ID: $SESSION" "$LAB/lab/ssh-key")
ADDRESS=$(field devices.json '[0]["raw"]["ansible_host"]')
NAME=$(field devices.json '[0]["name"]')

# 6. Work with them.
echo "$NAME at $ADDRESS:"
ssh -i "$FOLDER/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
    "root@$ADDRESS" "vtysh -c 'show ip ospf interface'"

# 7. Who uses the lab no more says so; the end of the session, on the way out, takes it down.
call -X POST -H "X-Session-ID: $SESSION" "$LAB/lab/release"
