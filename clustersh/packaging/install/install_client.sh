#!/usr/bin/env bash
# Makes this machine one that clustersh commands are typed on. Served by clusterd.
# The braces have the shell read all of it before it runs any of it: half a download does nothing, and says so.
trap 'echo "ERROR: the installer did not arrive whole: run the line again" >&2' EXIT
{
trap - EXIT
set -euo pipefail
@COMMON@

program=clustersh
script=install_client.sh
main "$@" </dev/null
exit
}
