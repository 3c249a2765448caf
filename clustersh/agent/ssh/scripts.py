"""What runs on the other side: lines for any POSIX shell.

Each travels as one word of a command line that the user's login shell reads, whichever that is: so none of them has a
single quote or a line's end in it. What is secret is in none of them; that is sent through stdin.
"""

from __future__ import annotations

READY = b"clustersh-ready"
"""The line that ends what the greeter says."""

_FACTS = (
    'echo "system $(uname -s)"',
    'echo "machine $(uname -m)"',
    'echo "kernel $(uname -r)"',
    'echo "hostname $(uname -n)"',
    'echo "user $(id -un)"',
    'echo "home $HOME"',
    '[ -r /etc/os-release ] && (. /etc/os-release && echo "distribution $ID-$VERSION_ID")',
    'echo "cpus $(getconf _NPROCESSORS_ONLN)"',
)
# `read` and `case` are the shell's own: looking costs one process, for df.
_VITALS = (
    'read -r l </proc/stat && echo "stat $l"',
    'read -r l </proc/loadavg && echo "load $l"',
    'read -r l </proc/uptime && echo "uptime $l"',
    'while read -r k v l; do case $k in MemTotal:|MemAvailable:) echo "$k $v";; esac; done </proc/meminfo',
    'for d in / "$HOME"; do echo "disk $d $(df -P "$d" | tail -n 1)"; done',
)
GREETER = (
    "exec 2>/dev/null; {facts}; {vitals}; echo {ready}; while IFS= read -r l; do {vitals}; echo {ready}; done".format(
        facts="; ".join(_FACTS), vitals="; ".join(_VITALS), ready=READY.decode()
    )
)
"""Says what the machine is and how it does; says the latter again for each line that it is sent, until their end."""

NAME = "clustersh:{uuid}:{machine}:"
"""The name ($0) of a job's first process there: by it the job is found again. Nobody else's begins so."""

JOB = "; ".join(
    (
        # $1 is a line's end, $2 the shell for the command. Nothing of ours is in a variable: they are the user's. What
        # $(...) would tell takes a process, and that a tenth of what starting the command takes.
        'set -- "${IFS#??}"',
        'set -- "${1%"${1#?}"}"',
        'set -f; IFS=:; for REPLY in $PATH; do [ -x "$REPLY/bash" ] && break; done; unset IFS; set +f',
        'if [ -x "$REPLY/bash" ]; then set -- "$1" "$REPLY/bash"; else set -- "$1" "$(command -v sh)"; fi',
        "IFS= read -r REPLY || exit 125",
        # The header: sets $3 (the mark), $4 (1: it has stdin), $5 (where), $6 (the job's folder), the environment, and
        # c, which runs the command.
        'eval "$REPLY"',
        "exec 4>&2 2>/dev/null",
        'say() { printf "%s%s\\n" "$1" "$2"; printf "%s%s\\n" "$1" "$2" >&4; }',
        'cd -- "$5" || { if [ -d "$5" ]; then say "$3" "Nnot allowed to enter the directory"; '
        'else say "$3" "Nno such directory"; fi; exit 0; }',
        # Caught and not ignored: a command that signals its own group ends itself, not this.
        "trap : HUP INT TERM",
        'say "$3" B',
        'if [ "$4" = 1 ]; then (exec 2>&4 4>&-; c "$@"); else (exec 2>&4 4>&- </dev/null; c "$@"); fi',
        'say "$3" "E$?"',
    )
)
"""Runs one job, named NAME: says B when it begins, E with its exit status after it, on both streams; or N, why not."""

_LOOK_PROC = (
    'look() { a=; for f in /proc/[0-9]*/stat; do read -r s <"$f" || continue; p=${f#/proc/}; p=${p%/stat}; '
    's=${s##*) }; set -- $s; case $1 in Z|X) ;; *) a="$a $p:$2:$4";; esac; done; '
    # A copy of a first process, about to be the command, still has its name; but it leads no session.
    'o=" "$(echo $(grep -Fls "$n" /proc/[0-9]*/cmdline))" "; l=; for z in $a; do p=${z%%:*}; '
    'case $z in *:"$p") case $o in *" /proc/$p/cmdline "*) l="$l $p";; esac;; esac; done; '
    'o=$(grep -Fls "CLUSTERSH_JOB=$u" /proc/[0-9]*/environ); t=; for f in $o; do '
    'tr "\\000" "\\n" <"$f" | grep -Fqx "CLUSTERSH_MACHINE=$k" && { p=${f#/proc/}; t="$t ${p%/environ}"; }; done; }'
)
_LOOK_PS = (
    'look() { t=; a=$(ps -A -o pid= -o ppid= -o pgid= | while read -r p q g; do printf " %s" "$p:$q:$g"; done); '
    'l=$(ps -A -ww -o pid= -o command= | while read -r p q; do case $q in *"$n"*) printf " %s" "$p";; esac; done); }'
)
END = "; ".join(
    (
        # Joined here, so that this shell's own command line does not hold the name that it looks for.
        'u=$1 k=$2 y=$3 n="clustersh:$u:$k:" i=0 x=" "',
        f"if [ -r /proc/self/stat ]; then {_LOOK_PROC}; else {_LOOK_PS}; fi",
        # All of the first processes' sessions, what is marked, and everybody below them; not those first ones.
        'tree() { look; v=" "; for p in $t; do v="$v$p "; done; for q in $l; do for z in $a; do '
        'case $z in *:"$q") p=${z%%:*}; case " $l " in *" $p "*) ;; *) v="$v$p ";; esac;; esac; done; done; '
        "r=1; while [ $r = 1 ]; do r=0; for z in $a; do p=${z%%:*} q=${z#*:}; q=${q%:*}; "
        'case "$v" in *" $p "*) continue;; esac; case "$v" in *" $q "*) v="$v$p "; r=1;; esac; done; done; }',
        'while :; do tree; [ "$v" = " " ] && exit 0',
        "if [ $i -ge $y ]; then kill -KILL $v $l; [ $i -ge $((y + 100)) ] && exit 1",
        'else for p in $v; do case "$x" in *" $p "*) ;; *) kill -TERM $p; kill -CONT $p; x="$x$p ";; esac; done; fi',
        "sleep 0.1 && i=$((i + 1)) || { sleep 1; i=$((i + 10)); }; done",
    )
)
"""Ends all that belongs to the job $1 of the machine $2: TERM, after $3 tenths of a second KILL. 1: some lives."""

UNPACK = 'umask 077; mkdir -- "$1" && cd -- "$1" && exec tar -xof -'
REMOVE = 'exec rm -rf -- "$1"'
"""$1 is the job's folder there. What is unpacked is its user's own, also root's: not a user's of the same number."""
FOLDER = '"${TMPDIR:-/tmp}"/clustersh-'
"""Where a job's files go, its uuid and its machine's name after it; words of shell."""
