# Completion of clustersh for fish: its commands, machines' names, groups, and recent uuids.

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
            case -o -x --ca --canary --client --command --cwd --disk --env --exclude --file --http --idle-timeout --key --length --limit --listen --max-failures --name --offset --output --pick --placement --port --rolling --script --service --since --status --tail --tcp --timeout --via --wait
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

set -l targets run:0 check:0 history:0 machines:0 label:0 policy:1 targets:{0,1,2,3} groups:{2,3,4,5}
set -l others :0 cat:0 cat:1 cancel:0 cancel:1 wait:0 policy:0 groups:0 groups:1
complete -c clustersh -n "__clustersh_at $targets $others" -f
complete -c clustersh -n '__clustersh_at :0' -a 'run machines discover targets groups label check policy cat history wait cancel adopt login logout whoami standby up down help'
complete -c clustersh -n '__clustersh_at groups:0' -a 'list add remove delete import-sshsync'
complete -c clustersh -n '__clustersh_at policy:0' -a test
complete -c clustersh -n '__clustersh_at groups:1' -a '(__clustersh_complete groups)'
complete -c clustersh -n "__clustersh_at $targets cat:0 cancel:0" -a '(__clustersh_complete machines)'
complete -c clustersh -n '__clustersh_at cat:0 cat:1 cancel:0 cancel:1 wait:0' -k -a '(__clustersh_complete uuids)'
complete -c clustersh -l via -x -a '(__clustersh_complete machines)'
complete -c clustersh -s x -l exclude -x -a '(__clustersh_complete machines)'
