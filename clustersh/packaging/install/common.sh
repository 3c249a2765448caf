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

main() {
    read_options "$@"
    drop PYTHON
    choose_places
    if [ "$uninstall" ]; then
        uninstall
        return
    fi
    prepare
    find_python
    take_lock
    clear_leftovers
    reuse_version || make_version
    "$venv/bin/python" -I -m clustersh.installation install "$program" --data "$data" --venv "$venv" \
        --address "$address" --ca "$ca_sha256" --line "$(this_line)" "${given[@]}"
}

# Sets given to the options that the second half is for, and scope and uninstall.
read_options() {
    local known="--name NAME, --user, --system, --uninstall"
    if [ "$program" = clusteragent ]; then known="$known, --run-as USER, --no-service"; fi
    scope=user uninstall='' given=(--user)
    while [ $# -gt 0 ]; do
        case ", $known," in
        *", $1 "[A-Z]*)
            if [ $# -lt 2 ] || [ -z "$2" ]; then fail "$1 needs a value" "the options: $known"; fi
            given+=("$1" "$2")
            shift
            ;;
        *", $1,"*)
            case $1 in
            --user) scope=user given+=(--user) ;;
            --system) scope=system given+=(--system) ;;
            --uninstall) uninstall=yes ;;
            *) given+=("$1") ;;
            esac
            ;;
        *) fail "there is no option '$1'" "the options: $known" ;;
        esac
        shift
    done
}

# What this shell's user set for other Pythons and pips is not for the private one.
drop() {
    local name
    for name in $(compgen -e "$1"); do unset "$name"; done
}

choose_places() {
    if [ "$scope" = system ]; then
        if [ "$(id -u)" != 0 ]; then fail "--system is for root" "the same with sudo: ... | sudo bash -s -- --system"; fi
        umask 022
        data=/opt/clustersh
    else
        case ${HOME:-} in
        /*) ;;
        *) fail "HOME is no whole path, so there is no place to install to" ;;
        esac
        umask 077
        case ${XDG_DATA_HOME:-} in
        /*) data=$XDG_DATA_HOME/clustersh ;;
        *) data=$HOME/.local/share/clustersh ;; # its specification: "relative: ignore it"
        esac
    fi
    log=$data/install.log
}

# The line that was typed, to have it typed again.
this_line() {
    if [ "$scheme" = https ]; then
        printf "curl -fsSk --pinnedpubkey '%s' https://%s/%s" "$server_pin" "$address" "$script"
    else
        printf 'curl -fsS http://%s/%s' "$address" "$script"
    fi
}

# Makes the data folder, and in it a list of the folders that were made for it: the last one that goes takes them along.
prepare() {
    local folder=$data free
    local -a made=()
    command -v curl >/dev/null || fail "there is no curl" "install it with this system's packages, then run the line again"
    while [ ! -d "$folder" ]; do
        made+=("$folder")
        folder=${folder%/*}
        folder=${folder:-/}
    done
    if ! mkdir -p "$data" 2>/dev/null || ! [ -w "$data" ]; then
        fail "can't write to $data" "its owner may, or another user with a home"
    fi
    if [ ${#made[@]} -gt 0 ]; then
        printf '%s\n' "${made[@]}" >>"$data/made" || fail "can't write to $data" "is the disk full?"
    fi
    mkdir -p "$data/versions" || fail "can't write to $data" "is the disk full?"
    free=$(room -k)
    if [ "$free" -lt 153600 ] && ! [ -L "$data/current" ]; then
        abandon
        fail "there is too little room on the disk of $data: $((free / 1024)) MiB, and 150 are needed" \
            "free some space there, then run the line again"
    fi
    work=$(mktemp -d "$data/install.XXXXXX") || fail "can't write to $data" "is the disk full?"
    new=''
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# How much is free where the data is: KiB (-k) or files (-i); a lot where that can't be told.
room() {
    local free=''
    { read -r _ && read -r _ _ _ free _; } < <(df -P "$1" "$data" 2>/dev/null) || true
    case $free in '' | *[!0-9]*) free=999999999 ;; esac
    printf %s "$free"
}

# Whatever ends this: nothing half-made stays.
# shellcheck disable=SC2317  # the trap calls it
leave() {
    rm -rf "$work"
    if [ "$new" ] && ! [ "$data/current" -ef "$new" ]; then rm -rf "$new"; fi
    if ! [ -L "$data/current" ]; then remove_made "$(made)"; fi
}

# Gives up what was made before anything was in it.
abandon() {
    rmdir "$data/versions" 2>/dev/null || return 0
    if ! [ -e "$log" ]; then sweep; fi
}

# Removes what installations put into the data folder, and the folders that were made for it. What else is there stays.
sweep() {
    local folders
    folders=$(made)
    rm -rf "$data/versions" "$data/python" "$data"/install.?????? "$data"/.clustersh-link-*
    rm -f "$data"/{current,has-clusteragent,has-clustersh,made,install.log,lock}
    rmdir "$data" 2>/dev/null || true
    remove_made "$folders"
}

# The folders that were made, the innermost first.
made() {
    if [ -f "$data/made" ]; then sort -ru "$data/made"; fi
}

remove_made() {
    local folder
    while read -r folder; do
        if [ "$folder" ] && [ -d "$folder" ]; then rmdir "$folder" 2>/dev/null || true; fi
    done <<<"$1"
}

# Sets python to a Python >= 3.11 that can make a venv.
find_python() {
    local candidate
    for candidate in "$data/current/bin/python" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -I -c 'import sys, venv, ensurepip, ssl; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            python=$(command -v "$candidate")
            return
        fi
    done
    if uv_python; then return; fi
    rm -rf "$work"
    abandon
    fail "no Python >= 3.11 with venv was found" \
        "Debian, Ubuntu: apt install python3-venv; Fedora: dnf install python3; macOS: brew install python" \
        "or install uv (https://docs.astral.sh/uv), which fetches one; then run the line again"
}

# A Python that uv fetches into the data folder, where there is uv, or an older Python whose pip can fetch that.
uv_python() {
    local uv
    if ! uv=$(command -v uv); then
        python3 -I -m pip --disable-pip-version-check --no-input --no-cache-dir install --quiet --only-binary :all: \
            --target "$work/uv" uv >>"$log" 2>&1 || return 1
        uv=$work/uv/bin/uv
    fi
    export UV_PYTHON_INSTALL_DIR=$data/python UV_CACHE_DIR=$work/uv-cache UV_PYTHON_PREFERENCE=only-managed
    export UV_PYTHON_INSTALL_BIN=0
    "$uv" python install 3.12 >>"$log" 2>&1 && python=$("$uv" python find --no-project 3.12 2>>"$log")
}

# One installation at a time. The lock is the system's: it ends with whoever holds the descriptor.
take_lock() {
    { exec 9>>"$data/lock"; } 2>/dev/null || fail "can't write to $data" "is the disk full? Else run the line again"
    "$python" -I -c '
import fcntl, time
for _ in range(600):
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)
    else:
        break
else:
    raise SystemExit(1)
' || fail "another installation is at work in $data" "run the line again when it has ended"
    [ -e "$data/lock" ] || fail "what is in $data was uninstalled meanwhile" "run the line again"
    : >"$log" || fail "can't write to $log" "is the disk full?"
}

# What an installation that was killed left: its work, and versions that never were whole.
clear_leftovers() {
    local each
    for each in "$data"/install.*/ "$data"/versions/*/; do
        each=${each%/}
        if [ -d "$each" ] && [ "$each" != "$work" ] && ! [ -e "$each/wheel.sha256" ]; then rm -rf "$each"; fi
    done
    # The one that had the lock before may have taken this one's for such.
    [ -d "$work" ] || mkdir -m 700 "$work" || fail "can't write to $data" "is the disk full?"
}

# Sets venv to one that holds this very wheel, and is as it was made.
reuse_version() {
    for venv in "$data"/versions/*; do
        if [ "$(cat "$venv/wheel.sha256" 2>/dev/null)" = "$wheel_sha256" ] &&
            "$venv/bin/python" -I -m clustersh.installation check >>"$log" 2>&1; then
            return 0
        fi
    done
    return 1
}

make_version() {
    fetch ca.pem 2>>"$log" ||
        fail "can't reach the coordinator at $address" "run the line again when it is up" "log: $log"
    new=$(mktemp -d "$data/versions/$version.XXXXXX") || fail "can't write to $data" "is the disk full?"
    venv=$new
    if [ "$scope" = system ]; then chmod 755 "$venv"; fi
    TMPDIR=$work "$python" -I -m venv "$venv" >>"$log" 2>&1 || fail_with_log "can't make a venv in $data/versions"
    install_package
    compile_version
    printf '%s\n' "$wheel_sha256" >"$venv/wheel.sha256" || fail_with_log "can't write to $data"
}

# As fail, with the last words of the log and where it is. A full disk is the likeliest reason of all.
fail_with_log() {
    local message=$1
    shift
    if [ "$(room -k)" -lt 10240 ] || [ "$(room -i)" -lt 500 ] || grep -q 'No space left on device' "$log"; then
        set -- "the disk of $data is full: free some space, then run the line again"
    fi
    fail "$message" "$@" "log: $log"
}

# pip of the new venv, which leaves nothing outside it; only_here has it look at nothing but what it is told.
venv_pip() {
    TMPDIR=$work "$venv/bin/python" -I -m pip --disable-pip-version-check --no-input --no-cache-dir --retries 2 \
        "$@" >>"$log" 2>&1
}

only_here() {
    drop PIP_
    export PIP_CONFIG_FILE=/dev/null
}

# Fetches a file of the coordinator's to the work folder, from the holder of its key where this script came that way.
fetch() {
    local -a secure=()
    if [ "$scheme" = https ]; then secure=(--insecure --pinnedpubkey "$server_pin"); fi
    curl -fsS ${secure[@]+"${secure[@]}"} --connect-timeout 15 --output "$work/${1##*/}" "$scheme://$address/$1"
}

# The coordinator's own wheel, checked against the sum that this script carries.
fetch_wheel() {
    local found
    fetch "packages/$wheel_name" 2>>"$log" ||
        fail_with_log "can't fetch $wheel_name from $address" "run the line again when the coordinator is up"
    found=$("$python" -I -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
        "$work/$wheel_name")
    [ "$found" = "$wheel_sha256" ] ||
        fail "$wheel_name is not what the coordinator promised (its SHA-256 is $found)" "run the line again" "log: $log"
}

# Whether the coordinator's wheelhouse has all that this machine needs.
has_wheels() {
    local kind
    kind=$("$venv/bin/python" -I -c 'import platform, sys
print(sys.platform, platform.machine(), "%d.%d" % sys.version_info[:2])')
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
            venv_pip install --no-compile --require-hashes --only-binary :all: --index-url "$scheme://$address/simple/" \
                --trusted-host "$address" -r "$work/requirements.txt"
        ) || fail_with_log "can't install from the coordinator's wheelhouse" \
            "run the line again; if that doesn't help, on the coordinator: clusterd wheelhouse fill --help"
    else
        fetch_wheel
        (
            unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PIP_NO_DEPS PIP_REQUIRE_HASHES PIP_PYTHON
            export PIP_USER=0
            venv_pip install --no-compile --only-binary :all: "$work/$wheel_name"
        ) || fail_with_log "can't install what clustersh needs from this user's package index" \
                "no internet here? On the coordinator: clusterd wheelhouse fill --help"
    fi
}

# pip would compile one file after the other, and the tests of all packages too. What can't be compiled runs as it is.
compile_version() {
    "$venv/bin/python" -I -m compileall -q -j 0 -x '/site-packages/.*/tests?/' "$venv/lib" >>"$log" 2>&1 || true
}

# The second half takes the program away; when it was the last one, there is no current version any more.
uninstall() {
    if "$data/current/bin/python" -I -c 'import clustersh.installation' 2>/dev/null; then
        python=$data/current/bin/python
        take_lock
        "$python" -I -m clustersh.installation uninstall "$program" --data "$data" "${given[@]}"
    elif [ -L "$data/current" ]; then
        fail "the installation in $data is damaged" "run the line without --uninstall, which repairs it, and then again"
    else
        python=python3
        if [ -e "$data/lock" ] && python3 -I -c '' 2>/dev/null; then take_lock; fi
        printf 'There is no installation in %s.\n' "$data"
    fi
    if ! [ -L "$data/current" ]; then sweep; fi
}
