#!/bin/sh
# HAProxy as Ray Serve starts it, but with its status and metrics pages on this machine alone.
#
# Serve has them listen on every address (`bind *:PORT`, `bind :PORT`) and gives no setting for it:
# whoever reaches the machine could read what runs there and how busy it is. This stands in for the
# program (RAY_SERVE_HAPROXY_BINARY_PATH), rewrites those lines of the file that Serve has just
# written, and becomes the real program (RAYMETA_HAPROXY_BINARY), so that signals reach it. The
# service itself listens where it was told to: its `bind` names an address.
set -eu
file=
previous=
for word in "$@"; do
  [ "$previous" = -f ] && file=$word
  previous=$word
done
if [ -n "$file" ]; then
  sed -i 's/^\( *bind \)\*\{0,1\}:\([0-9]\)/\1127.0.0.1:\2/' "$file"
fi
exec "$RAYMETA_HAPROXY_BINARY" "$@"
