"""``clustersh check`` on a machine that only has ssh: there is no agent's Python there, so a shell makes the checks.

It prints the line that the probe prints (clustersh.probe), and ends with the same status. Only how long something took
isn't told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ...probe.grammar import DiskRule, Endpoint, read, read_options
from ...wire.jobs import PROBE
from ..executors import ExecutorError

# Each check runs by itself in the background, and prints one line: its number, true or false, and what is told of it.
SCRIPT = r"""
seconds=$1 end="end-of-check-$$" n='
'
shift
has() { command -v "$1" >/dev/null 2>&1; }
yes() { printf 'true %s\n' "$1"; }
no() { printf 'false %s\n' "$1"; }
limit=
if has timeout; then limit="timeout -s KILL $seconds"
elif has perl; then limit="perl -e alarm(shift);exec(@ARGV) $seconds"
fi

# Runs its words; sets status, and said to the last line that they printed. What they leave in the background holds
# the pipe, and is not waited for.
try() {
    begun=$(date +%s)
    said=$({ (exec $limit "$@") 2>&1 </dev/null; printf '\n%s %s\n' "$end" $?; } 2>/dev/null |
        sed -n "/^$end /{s///;G;s/\n/ /;p;q;}; /[^[:space:]]/h")
    status=${said%% *} said=${said#* }
    case $status in 124 | 137 | 142 | 143) [ $(($(date +%s) - begun)) -lt "$seconds" ] || status=late ;; esac
}

http() {
    if has curl; then
        out=$(curl -sSL --proto =http,https --max-redirs 5 --noproxy '*' -A clustersh -m "$seconds" \
            -o /dev/null -w '\n%{http_code}' -- "$1" 2>&1)
        status=$? code=${out##*"$n"} said=${out%"$n"*}
        case $status:$code in
        0:[23]?? | 18:2?? | 28:2?? | 56:2??) yes "$code" ;;
        28:*) no "no answer within ${seconds}s" ;;
        47:*) no "more than 5 redirects" ;;
        0:*) no "$code" ;;
        *) said=${said##*curl: }; no "${said#(*) }" ;;
        esac
    elif has wget; then
        unset http_proxy https_proxy
        try wget -O /dev/null -T "$seconds" "$1"
        case $status in 0) yes answered ;; late) no "no answer within ${seconds}s" ;; *) no "$said" ;; esac
    else
        no "there is neither curl nor wget on it"
    fi
}

tcp() {
    # The first line that bash says tells most.
    open='(exec 3<>"/dev/tcp/$0/$1") 2>&1 | { ! read -r l || { echo "$l"; exit 1; }; }'
    if has bash; then try bash -c "$open" "$1" "$2"
    elif has nc; then try nc -z -w "$seconds" "$1" "$2"
    else no "there is neither bash nor nc on it"; return
    fi
    case $status in
    0) yes connected ;;
    late) no "no answer within ${seconds}s" ;;
    *) said=${said##*: }; no "${said:-no connection}" ;;
    esac
}

service() {
    if has systemctl; then
        for manager in --system --user; do
            out=$($limit systemctl $manager show --property=LoadState,ActiveState,SubState -- "$1" 2>&1) ||
                { [ $manager = --user ] || { no "systemd does not answer: ${out%%"$n"*}"; return; }; }
            state=$(printf '%s\n' "$out" | sed -n 's/^ActiveState=//p')
            sub=$(printf '%s\n' "$out" | sed -n 's/^SubState=//p')
            case $out in *LoadState=not-found*) [ "$state" != inactive ] || continue ;; esac
            case $state in
            active | reloading) yes "$state ($sub)"; return ;;
            ?*) no "$state ($sub)"; return ;;
            esac
        done
        no "systemd knows no such unit"
    elif has launchctl; then
        for domain in system "gui/$(id -u)" "user/$(id -u)"; do
            out=$($limit launchctl print "$domain/$1" 2>/dev/null) || continue
            state=$(printf '%s\n' "$out" | sed -n 's/^[[:space:]]state = //p' | head -n 1)
            if [ "$state" = running ]; then yes running; else no "${state:-launchd does not say}"; fi
            return
        done
        no "launchd knows no such service"
    else
        no "nothing manages services here that could be asked"
    fi
}

disk() {
    case $1 in '~' | '~/'*) set -- "$HOME${1#'~'}" "$2" "$3" ;; esac
    out=$($limit df -P -k -- "$1" 2>&1) || { said=${out##*: }; no "${said:-no answer within ${seconds}s}"; return; }
    printf '%s\n' "$out" | tail -n 1 | awk -v rule="$2" -v number="$3" '{
        for (i = 4; i <= NF; i++) if ($i ~ /^[0-9]+%$/) break
        used = $(i - 2); free = $(i - 1); size = used + free
        if (i > NF || !size) { print "false no disk: its size is 0"; exit }
        share = 100 * used / size; number += 0; shown = free * 1024
        ok = rule == "used" ? share < number : rule == "free" ? 100 - share > number : free * 1024 > number
        split("B kB MB GB TB", unit, " ")
        for (u = 1; u < 5 && shown >= 999.95; u++) shown /= 1000
        printf "%s %.1f%% used, %.1f %s free\n", ok ? "true" : "false", share, shown, unit[u]
    }'
}

command_() {
    if has bash; then try bash -c "$1"; else try sh -c "$1"; fi
    case $status in
    0) yes "exit 0" ;;
    late) no "still ran after ${seconds}s${said:+: $said}" ;;
    *) no "exit $status${said:+: $said}" ;;
    esac
}

one() {
    number=$1 kind=$2; shift 2
    if [ "$kind" = command ]; then kind=command_; else export LC_ALL=C; fi
    found=$($kind "$@" 2>/dev/null | head -n 1 | LC_ALL=C tr -c '[:print:]\n' '?' | cut -c 1-200)
    printf '%s %s\n' "$number" "${found:-false the check itself failed}"
}

{
    i=0
    while [ $# -ge 4 ]; do
        i=$((i + 1)); one $i "$1" "$2" "$3" "$4" &
        shift 4
    done
    wait
} | sort -n | {
    all=0 found=
    while read -r i ok said; do
        [ "$ok" = true ] || all=1
        said=$(printf '%s\n' "$said" | sed 's/[\\"]/\\&/g')
        found="$found${found:+, }{\"ok\": $ok, \"said\": \"$said\"}"
    done
    printf '{"checks": [%s]}\n' "$found"
    exit $all
}
"""


def is_probe(argv: tuple[str, ...] | None) -> bool:
    """Whether *argv* asks for what the machine's agent does by itself."""
    return argv is not None and argv[: len(PROBE)] == PROBE


def words_for(argv: Sequence[str]) -> list[str]:
    """Return the words for SCRIPT that ask for what *argv* does. Raises ExecutorError where it makes no sense."""
    try:
        seconds, checks = read_options(argv[len(PROBE) :])
        words = [word for kind, text in checks for word in (kind, *_subject(kind, text))]
    except ValueError as error:
        raise ExecutorError(str(error)) from error
    return [str(max(1, math.ceil(seconds))), *words]


def _subject(kind: str, text: str) -> Iterator[str]:
    """Yield the three words that say what is checked."""
    subject = read(kind, text)
    match subject:
        case Endpoint(host, port):
            yield from (host, str(port), "")
        case DiskRule(path, used, free, size):
            rule = next(each for each in (("used", used), ("free", free), ("bytes", size)) if each[1] is not None)
            yield from (path, rule[0], str(rule[1]))
        case _:
            yield from (text, "", "")
