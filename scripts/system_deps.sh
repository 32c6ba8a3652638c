#!/bin/sh
# The system's components: installs what system-packages.txt lists and this machine lacks. Needs apt and root.
set -eu
cd "$(dirname "$0")/.."

wanted=$(sed 's/#.*//' system-packages.txt | tr -s ' \n' ' ')
if ! command -v apt-get >/dev/null 2>&1; then
    echo "system-deps: no apt here; install these by hand:$wanted" >&2
    exit 1
fi

missing=""
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "system-deps: all here:$wanted"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "system-deps: missing:$missing" >&2
    echo "system-deps: only root can install them: sudo make system-deps" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q </dev/null
# shellcheck disable=SC2086 # the list is split into words on purpose
apt-get install -y -q --no-install-recommends $missing </dev/null
