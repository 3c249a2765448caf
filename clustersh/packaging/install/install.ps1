# Makes this machine one that clustersh runs commands on. Served by clusterd.
# The braces have PowerShell read all of it before it runs any of it: half a download does nothing.
& {
$ErrorActionPreference = 'Stop'
@COMMON@

Install-Package
& (Join-Path $Venv 'Scripts\clusteragent.exe') enroll "http://$Address" --ca $CaSha256
}
