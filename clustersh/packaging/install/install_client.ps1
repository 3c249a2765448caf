# Makes this machine one that clustersh commands are typed on. Served by clusterd.
# The braces have PowerShell read all of it before it runs any of it: half a download does nothing.
param([string] $Name, [switch] $Uninstall)
& {
$ErrorActionPreference = 'Stop'
@COMMON@

if ($Uninstall) {
    $Client = Find-Program 'clustersh'
    if ($Client) { & $Client logout }
    Remove-Installation
    return
}
Install-Package
Write-JoinConfig
$Called = @(if ($Name) { '--name', $Name })
& (Join-Path $Venv 'Scripts\clustersh.exe') login "http://$Address" --ca $CaSha256 --no-wait @Called
if ($LASTEXITCODE) { Stop-Installing 'the coordinator was not asked to let this user in' 'what went wrong stands above' }
"clustersh is installed: $Venv\Scripts\clustersh.exe"
}
