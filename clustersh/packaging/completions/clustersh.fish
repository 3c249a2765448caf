# Completion of clustersh for fish: its commands, machines' names, and recent uuids.

# Whether what is typed comes after one of the given places, such as "run:0": a command and how many words after it.
function __clustersh_at
    set -l command ""
    set -l positional 0
    set -l value 0
    for word in (commandline -opc)[2..-1]
        if test $value = 1
            set value 0
            continue
        end
        switch $word
            case -x --ca --client --command --cwd --disk --env --exclude --file --http --idle-timeout --key --length --limit --listen --name --offset --port --script --service --since --status --tail --tcp --timeout --wait
                set value 1
            case '-*'
            case '*'
                if test -z "$command"
                    set command $word
                else
                    set positional (math $positional + 1)
                end
        end
    end
    test $value = 0; and contains -- $command:$positional $argv
end

function __clustersh_complete
    set -l program (commandline -opc)[1]
    $program __complete $argv (commandline -ct) 2>/dev/null
end

complete -c clustersh -n '__clustersh_at :0 run:0 check:0 history:0 cat:0 cat:1 cancel:0 cancel:1 wait:0' -f
complete -c clustersh -n '__clustersh_at :0' -a 'run machines check cat history wait cancel login logout whoami up down help'
complete -c clustersh -n '__clustersh_at run:0 check:0 history:0 cat:0 cancel:0' -a '(__clustersh_complete machines)'
complete -c clustersh -n '__clustersh_at cat:0 cat:1 cancel:0 cancel:1 wait:0' -k -a '(__clustersh_complete uuids)'
