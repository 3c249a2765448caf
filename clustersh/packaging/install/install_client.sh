#!/usr/bin/env bash
# Makes this machine one that clustersh commands are typed on. Served by clusterd.
# The braces have the shell read all of it before it runs any of it: half a download does nothing.
{
set -euo pipefail
umask 077
@COMMON@

prepare
install_package
place_programs clustersh
"$venv/bin/clustersh" login "http://$address" --ca "$ca_sha256" --no-wait </dev/null
exit
}
