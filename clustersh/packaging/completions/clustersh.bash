# shellcheck shell=bash
# Completion of clustersh for bash: its commands, machines' names, and recent uuids.

_clustersh() {
    local word=${COMP_WORDS[COMP_CWORD]} command="" positional=0 value=0 kinds="" kind found index
    for ((index = 1; index < COMP_CWORD; index++)); do
        if ((value)); then
            value=0
            continue
        fi
        case ${COMP_WORDS[index]} in
            -x | --ca | --client | --command | --cwd | --disk | --env | --exclude | --file | --http | --idle-timeout | \
                --key | --length | --limit | --listen | --name | --offset | --port | --script | --service | --since | \
                --status | --tail | --tcp | --timeout | --wait) value=1 ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=${COMP_WORDS[index]}; else ((positional += 1)); fi ;;
        esac
    done
    COMPREPLY=()
    if ((value)) || [[ $word == -* ]]; then
        return
    fi
    case $command:$positional in
        :0)
            kind="run machines check cat history wait cancel login logout whoami up down help"
            while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -W "$kind" -- "$word")
            return
            ;;
        run:0 | check:0 | history:0) kinds=machines ;;
        cat:0 | cancel:0) kinds="machines uuids" ;;
        cat:1 | cancel:1 | wait:0) kinds=uuids ;;
    esac
    for kind in $kinds; do
        while IFS= read -r found; do
            COMPREPLY+=("$found")
        done < <("${COMP_WORDS[0]}" __complete "$kind" "$word" 2>/dev/null)
    done
}

complete -o default -F _clustersh clustersh
