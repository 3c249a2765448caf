# shellcheck shell=bash
# Completion of clustersh for bash: its commands, machines' names, groups, and recent uuids.

_clustersh() {
    # Not from COMP_WORDS: bash takes targets apart at their @ and :, and $2 is what it will replace of the last word.
    local line=${COMP_LINE:0:COMP_POINT} replaced=$2 word command="" positional=0 option="" kinds="" kind part found
    local -a typed
    word=${line##*[[:space:]]}
    read -ra typed <<<"${line%"$word"}"
    word=${word#[\'\"]}
    for part in "${typed[@]:1}"; do
        if [[ -n $option ]]; then
            option=""
            continue
        fi
        case $part in
            -o | -x | --ca | --canary | --client | --command | --cwd | --disk | --env | --exclude | --file | \
                --http | --idle-timeout | --key | --length | --limit | --listen | --max-failures | --name | \
                --offset | --output | --pick | --placement | --port | --rolling | --script | --service | --since | \
                --status | --tail | --tcp | --timeout | --via | --wait) option=$part ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=$part; else ((positional += 1)); fi ;;
        esac
    done
    COMPREPLY=()
    case $option:$word:$command:$positional in
        -x:* | --exclude:* | --via:*) kinds=machines ;;
        -*:* | :-*) return ;;
        :*::0)
            kind="run machines discover targets groups label check policy cat history wait cancel adopt login logout whoami standby up down help"
            while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -W "$kind" -- "$word")
            return
            ;;
        :*:groups:0)
            kind="list add remove delete import-sshsync"
            while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -W "$kind" -- "$word")
            return
            ;;
        :*:policy:0)
            while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -W test -- "$word")
            return
            ;;
        :*:groups:1) kinds=groups ;;
        :*:run:0 | :*:check:0 | :*:history:0 | :*:machines:0 | :*:label:0 | :*:policy:1 | :*:targets:* | :*:groups:*) kinds=machines ;;
        :*:cat:0 | :*:cancel:0) kinds="machines uuids" ;;
        :*:cat:1 | :*:cancel:1 | :*:wait:0) kinds=uuids ;;
    esac
    for kind in $kinds; do
        while IFS= read -r found; do
            COMPREPLY+=("${found#"${word%"$replaced"}"}")
        done < <("${COMP_WORDS[0]}" __complete "$kind" "$word" 2>/dev/null)
    done
}

complete -o default -F _clustersh clustersh
