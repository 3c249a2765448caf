address=@ADDRESS@ scheme=@SCHEME@
version=@VERSION@
wheel_name=@WHEEL_NAME@
wheel_sha256=@WHEEL_SHA256@
ca_sha256=@CA_SHA256@
server_pin=@SERVER_PIN@
requirements=@REQUIREMENTS@
kinds=@KINDS@

fail() {
    local line
    printf 'ERROR: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit 1
}

# Sets python to a Python >= 3.11 that can make a venv.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys, venv, ensurepip, ssl; sys.exit(sys.version_info < (3, 11))' \
            </dev/null >/dev/null 2>&1; then
            python=$(command -v "$candidate")
            return
        fi
    done
    fail "no Python >= 3.11 with venv was found" \
        "Debian, Ubuntu: apt install python3-venv; Fedora: dnf install python3; macOS: brew install python"
}

# Where things go, and a new venv for this version.
prepare() {
    data=${XDG_DATA_HOME:-$HOME/.local/share}/clustersh
    venv=$data/versions/$version
    log=$data/install.log
    if ! mkdir -p "$data/versions" || ! : >"$log"; then fail "can't write to $data"; fi
    work=$(mktemp -d "$data/install.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    find_python
    "$python" -m venv --clear "$venv" </dev/null >>"$log" 2>&1 || fail "can't make a venv in $venv; $log says why"
}

# Makes this version the current one, and links its programs to where the user's shell finds them.
place_programs() {
    local program bin=$HOME/.local/bin
    ln -sfn "versions/$version" "$data/current"
    mkdir -p "$bin"
    for program in "$@"; do ln -sf "$data/current/bin/$program" "$bin/$program"; done
}

# pip of the new venv; only_here has it look at nothing but what it is told.
venv_pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" </dev/null >>"$log" 2>&1
}

only_here() {
    local name
    for name in $(compgen -e PIP_); do unset "$name"; done
    export PIP_CONFIG_FILE=/dev/null
}

# The coordinator's own wheel, checked against the sum that this script carries.
fetch_wheel() {
    local url="$scheme://$address/packages/$wheel_name" found
    local -a secure=()
    if [ "$scheme" = https ]; then secure=(--insecure --pinnedpubkey "$server_pin"); fi
    curl -fsS ${secure[@]+"${secure[@]}"} --output "$work/$wheel_name" "$url" </dev/null 2>>"$log" ||
        fail "can't fetch $url; $log says why" "run the line again when the coordinator is up"
    found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
        "$work/$wheel_name" </dev/null)
    [ "$found" = "$wheel_sha256" ] ||
        fail "$wheel_name is not what the coordinator promised (its SHA-256 is $found)" "run the line again"
}

# Whether the coordinator's wheelhouse has all that this machine needs.
has_wheels() {
    local kind
    kind=$("$python" -c 'import platform, sys
print(sys.platform, platform.machine(), "%d.%d" % sys.version_info[:2])' </dev/null)
    case $'\n'$kinds in *$'\n'"$kind"$'\n'*) return 0 ;; esac
    return 1
}

# The coordinator's version and what it needs, into $venv: from the coordinator where its wheelhouse was filled for
# machines like this one, every file against the sum that this script carries. Else what it needs comes from this
# user's own package index, wheels only.
install_package() {
    if has_wheels; then
        printf '%sclustersh==%s --hash=sha256:%s\n' "$requirements" "$version" "$wheel_sha256" >"$work/requirements.txt"
        (
            only_here
            venv_pip install --require-hashes --only-binary :all: --index-url "$scheme://$address/simple/" \
                --trusted-host "$address" -r "$work/requirements.txt"
        ) || fail "can't install from the coordinator's wheelhouse; $log says why" \
            "fill it again for this machine, on the coordinator: clusterd wheelhouse fill --help"
    else
        fetch_wheel
        venv_pip install --only-binary :all: "$work/$wheel_name" ||
            fail "can't install what clustersh needs from this user's package index; $log says why" \
                "no internet here? On the coordinator: clusterd wheelhouse fill --help"
    fi
}
