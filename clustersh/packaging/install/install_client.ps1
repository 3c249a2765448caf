# Makes this machine one that clustersh commands are typed on. Served by clusterd.
# The braces have PowerShell read all of it before it runs any of it: half a download does nothing.
& {
$ErrorActionPreference = 'Stop'
@COMMON@

Install-Package
& (Join-Path $Venv 'Scripts\clustersh.exe') login "http://$Address" --ca $CaSha256
}
