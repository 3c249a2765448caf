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

# The coordinator's version and what it needs, into a new venv: from the coordinator's wheelhouse where an admin has
# filled one, else what it needs comes from this user's own package index, wheels only.
function Install-Package {
    $Python = Find-Python
    $script:Data = Join-Path $env:LOCALAPPDATA 'clustersh'
    $script:Venv = Join-Path $Data "versions\$Version"
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
    } finally {
        Remove-Item -Recurse -Force $Work
    }
}
