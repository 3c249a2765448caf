# Makes this machine one that clustersh runs commands on. Served by clusterd.
# The braces have PowerShell read all of it before it runs any of it: half a download does nothing.
param([string] $Name, [switch] $NoService, [switch] $Uninstall)
& {
$ErrorActionPreference = 'Stop'
@COMMON@

if ($Uninstall) {
    $Agent = Find-Program 'clusteragent'
    if ($Agent) {
        & $Agent service uninstall
        & $Agent leave --purge
        if ($LASTEXITCODE) { & $Agent leave --purge --force }
    }
    Remove-Installation
    return
}
Install-Package
Write-JoinConfig
$Agent = Join-Path $Venv 'Scripts\clusteragent.exe'
$Called = @(if ($Name) { '--name', $Name })
& $Agent enroll "http://$Address" --ca $CaSha256 @Called
if ($LASTEXITCODE) { Stop-Installing 'the coordinator did not take this machine in' 'what it said stands above' }
if ($NoService) { return }
& $Agent service install
if ($LASTEXITCODE) { Stop-Installing 'the agent was not installed as a service' 'what it said stands above' }
& $Agent status --wait 60s
if ($LASTEXITCODE) { Stop-Installing 'this machine did not come online' 'the agent''s log: clusteragent service status' }
"This machine has joined $Address and is online; commands run as $env:USERNAME."
}
