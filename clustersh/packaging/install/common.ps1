$Address = @ADDRESS@
$Version = @VERSION@
$WheelName = @WHEEL_NAME@
$WheelSha256 = @WHEEL_SHA256@
$CaSha256 = @CA_SHA256@
$Requirements = @REQUIREMENTS@
$Kinds = @KINDS@

function Stop-Installing([string] $Message, [string] $Hint) {
    [Console]::Error.WriteLine("ERROR: $Message")
    if ($Hint) { [Console]::Error.WriteLine("hint: $Hint") }
    throw $Message
}

# A Python >= 3.11 that can make a venv.
function Find-Python {
    foreach ($Candidate in @('py', 'python3', 'python')) {
        if (Get-Command $Candidate -ErrorAction SilentlyContinue) {
            $Found = & $Candidate -c 'import sys, venv, ensurepip; print(sys.executable if sys.version_info >= (3, 11) else str())'
            if ($LASTEXITCODE -eq 0 -and $Found) { return $Found }
        }
    }
    Stop-Installing 'no Python >= 3.11 was found' 'winget install Python.Python.3.12'
}

$Data = Join-Path $env:LOCALAPPDATA 'clustersh'
$Venv = Join-Path $Data "versions\$Version-$($WheelSha256.Substring(0, 12))"
$StateHome = if ($env:CLUSTERSH_HOME) { $env:CLUSTERSH_HOME } else { Join-Path $HOME '.config\clustersh' }

# The program of that name, of whichever version is there.
function Find-Program([string] $Program) {
    Get-ChildItem -Path (Join-Path $Data "versions\*\Scripts\$Program.exe") -ErrorAction SilentlyContinue |
        Sort-Object LastWriteTime | Select-Object -Last 1 -ExpandProperty FullName
}

# Where the coordinator is, and its CA: what later commands start from. What is written there already stays.
function Write-JoinConfig {
    $Config = Join-Path $StateHome 'config.toml'
    if (Test-Path $Config) { return }
    New-Item -ItemType Directory -Force $StateHome | Out-Null
    [IO.File]::WriteAllText($Config, "[join]`ncoordinator = `"$Address`"`nca = `"$CaSha256`"`n")
}

# The programs go with the last of the two that is uninstalled.
function Remove-Installation {
    if ((Test-Path (Join-Path $StateHome 'agent\agent.json')) -or (Test-Path (Join-Path $StateHome 'client\login.json'))) {
        return
    }
    if (Test-Path $Data) { Remove-Item -Recurse -Force $Data }
    'clustersh is removed.'
}

# The coordinator's version and what it needs, into a new venv: from the coordinator's wheelhouse where an admin has
# filled one, else what it needs comes from this user's own package index, wheels only.
function Install-Package {
    $Python = Find-Python
    $Whole = Join-Path $Venv 'wheel.sha256'
    if (Test-Path $Whole) { return }
    $Work = Join-Path $Data 'install'
    New-Item -ItemType Directory -Force $Work | Out-Null
    try {
        & $Python -m venv --clear $Venv
        if ($LASTEXITCODE) { Stop-Installing "can't make a venv in $Venv" }
        $VenvPython = Join-Path $Venv 'Scripts\python.exe'
        $Pip = @('-m', 'pip', '--disable-pip-version-check', '--no-input', 'install', '--quiet', '--only-binary', ':all:')
        $Kind = & $VenvPython -c 'import platform, sys; print(sys.platform, platform.machine(), sys.winver[:4])'
        if (($Kinds -split "`n") -contains $Kind) {
            $List = Join-Path $Work 'requirements.txt'
            [IO.File]::WriteAllText($List, $Requirements + "clustersh==$Version --hash=sha256:$WheelSha256`n")
            & $VenvPython @Pip --isolated --require-hashes --index-url "http://$Address/simple/" `
                --trusted-host $Address -r $List
            if ($LASTEXITCODE) {
                Stop-Installing "can't install from the coordinator's wheelhouse" `
                    'fill it again for this machine, on the coordinator: clusterd wheelhouse fill --help'
            }
        } else {
            $Wheel = Join-Path $Work $WheelName
            Invoke-WebRequest -UseBasicParsing "http://$Address/packages/$WheelName" -OutFile $Wheel
            if ((Get-FileHash -Algorithm SHA256 $Wheel).Hash -ne $WheelSha256) {
                Stop-Installing "$WheelName is not what the coordinator promised" 'run the line again'
            }
            & $VenvPython @Pip $Wheel
            if ($LASTEXITCODE) {
                Stop-Installing "can't install what clustersh needs from this user's package index" `
                    'no internet here? On the coordinator: clusterd wheelhouse fill --help'
            }
        }
        [IO.File]::WriteAllText($Whole, $WheelSha256)
    } finally {
        Remove-Item -Recurse -Force $Work
        if (-not (Test-Path $Whole)) { Remove-Item -Recurse -Force $Venv -ErrorAction SilentlyContinue }
    }
}
