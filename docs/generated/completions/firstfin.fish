# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_firstfin_global_optspecs
    string join \n color= v/verbose ring-size= max-rung= max-sockets= h/help V/version
end

function __fish_firstfin_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_firstfin_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_firstfin_using_subcommand
    set -l cmd (__fish_firstfin_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c firstfin -n "__fish_firstfin_needs_command" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_needs_command" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_needs_command" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_needs_command" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_needs_command" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_needs_command" -s V -l version -d 'Print version'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "doctor" -d 'Say what this host allows, and what is missing'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "why" -d 'Say who has a port now, and what bind() or connect() would say'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "trace" -d 'Print ends of connections and failures as they happen'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "report" -d 'Watch this host for a while, then say who causes what'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "top" -d 'Watch this host and look at it as it happens'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "record" -d 'Watch this host and write down what is seen, to look into it later or elsewhere'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "replay" -d 'Make the report of a recording'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "what-if" -d 'Say what a change would have made of a recording'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "serve" -d 'Watch this host for good: metrics, alerts, a history'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "history" -d 'Say what was seen in the past: last night, at 03:12'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "demo" -d 'Watch a small misbehaving workload and report on it'
complete -c firstfin -n "__fish_firstfin_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -l format -d 'Form of the output' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l connect -d 'Say what connect() to this address and port would say, too' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l format -d 'Form of the output; JSON is "firstfin.why/1"' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand why" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l pid -d 'Only sockets of the process with this id' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l comm -d 'Only sockets of processes with this name, as the kernel keeps it (15 bytes at most)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l port -d 'Only sockets with this local or remote port' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l netns -d 'Only sockets of this network namespace' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l cgroup -d 'Only sockets of processes in this cgroup (v2)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l format -d 'Form of the output; JSON is one object a line, "firstfin.event/1"' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l duration -d 'Stop after this time: 30s, 5m, 1h30m, 500ms' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l count -d 'Stop after this many lines' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -l states -d 'Print every change of state, not only the ends of connections'
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l duration -d 'How long to watch: 30s, 5m, 1h30m, 500ms' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l interval -d 'Print a report of the session so far every TIME, too' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l format -d 'Form of the output; JSON is "firstfin.report/1", with --interval one object a line' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l fail-on -d 'Exit with status 1 if there is a finding of this severity or a worse one' -r -f -a "info\t'Worth knowing'
warning\t'Will hurt if it goes on'
critical\t'Hurts now'"
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l top -d 'How many entries of each list to show' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l record -d 'Write what was observed to this file, too: a recording for `firstfin replay`' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l html -d 'Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -l record -d 'Write what was observed to this file, too: a recording for `firstfin replay`' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -s o -l output -d 'The file to write; what it held is replaced' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l duration -d 'Stop after this time: 30s, 5m, 1h30m, 500ms. Without it, a signal ends it' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -l redact -d 'Replace every name and address, each by the same one everywhere'
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand record" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l redact -d 'Make no report, but a copy in which every name and address is replaced, each by the same one everywhere' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l format -d 'Form of the output; JSON is "firstfin.report/1"' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l fail-on -d 'Exit with status 1 if there is a finding of this severity or a worse one' -r -f -a "info\t'Worth knowing'
warning\t'Will hurt if it goes on'
critical\t'Hurts now'"
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l top -d 'How many entries of each list to show [default: 10]; without N: play it in the live view of `firstfin top`' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l speed -d 'How much faster than it happened the live view plays it: 1 to 1000' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l html -d 'Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l pool -d 'A pool: at most N connections of a process to a destination at once, which stay open; requests queue for one' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l keep-alive -d 'A connection that has been idle for less than this is used again: 5, 0.5, 30s, 2m' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l port-range -d 'Another net.ipv4.ip_local_port_range: 10240-65535' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l tw-reuse -d 'Another net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on loopback only' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l local-addresses -d 'Connections are made from N local addresses in turn' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l remote-addresses -d 'Each destination has N addresses, used in turn' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l process -d 'Only connections of this process: its id, or its name' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l format -d 'Form of the output; JSON is "firstfin.what-if/1"' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l client-closes-first -d 'The client closes first where the server does now: TIME_WAIT moves to the client'
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l linger0 -d 'Whoever closes first does so with SO_LINGER on and a time of zero: no TIME_WAIT, and data may be lost'
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -l all -d 'Try each remedy by itself, and rank them by their effect'
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand what-if" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l config -d 'The configuration. Without it: /etc/firstfin/firstfin.toml, if that is there' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l listen -d 'Where the endpoint listens: 127.0.0.1:19293, [::1]:19293, off (http.listen)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l interval -d 'How long a round is: 10s, 1m (observe.interval)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l top -d 'Groups of processes that have series of their own (metrics.top)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l set -d 'Set any key of the configuration; may be given more than once' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l check-config -d 'Read the configuration, say what is wrong with it, and stop'
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -l print-default-config -d 'Print the default configuration with its documentation, and stop'
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l since -d 'From when on; a day before the end, if not given' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l until -d 'Until when; now, if not given' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l at -d 'The minutes around this time: from two before to three after' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l process -d 'Only this process: its name, or that of its executable' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l unit -d 'Only processes of this systemd unit' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l container -d 'Only processes of this container: its name or the beginning of its id, or the name or uid of its pod' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l destination -d 'Only what went to this address, or was served there: 10.0.0.2, 10.0.0.2:5432, [::1]:80' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l finding -d 'Only findings of this kind: BindConflict, EphemeralPortExhaustion' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l by -d 'What the answer is about; in CSV, what a line is: a minute of a process, of a destination, or of the host' -r -f -a "process\t'Processes first'
destination\t'Destinations first'
minute\t'Single minutes first'"
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l database -d 'The database; a copy will do' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l format -d 'Form of the output; JSON is "firstfin.history/1"' -r -f -a "text\t'For people'
json\t'For programs'
csv\t'For spreadsheets: a line for each minute'"
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l top -d 'How many entries of each list to show; CSV has all of them' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l format -d 'Form of the output' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l fail-on -d 'Exit with status 1 if there is a finding of this severity or a worse one' -r -f -a "info\t'Worth knowing'
warning\t'Will hurt if it goes on'
critical\t'Hurts now'"
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l record -d 'Write what was observed to this file, too: a recording for `firstfin replay`' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l html -d 'Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing' -r -F
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l color -d 'Use colours' -r -f -a "auto\t''
always\t''
never\t''"
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l ring-size -d 'Size of the ring buffer that carries events from the kernel (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l max-rung -d 'Use no better means than this (advanced)' -r -f -a "fentry\t'fentry and fexit programs, and everything below'
kprobe\t'kprobes and kretprobes, and tracepoints'
tracepoint\t'Tracepoints'"
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -l max-sockets -d 'Number of sockets that can be followed at the same time (advanced)' -r
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -s v -l verbose -d 'Say more on standard error; twice for everything'
complete -c firstfin -n "__fish_firstfin_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "doctor" -d 'Say what this host allows, and what is missing'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "why" -d 'Say who has a port now, and what bind() or connect() would say'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "trace" -d 'Print ends of connections and failures as they happen'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "report" -d 'Watch this host for a while, then say who causes what'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "top" -d 'Watch this host and look at it as it happens'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "record" -d 'Watch this host and write down what is seen, to look into it later or elsewhere'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "replay" -d 'Make the report of a recording'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "what-if" -d 'Say what a change would have made of a recording'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "serve" -d 'Watch this host for good: metrics, alerts, a history'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "history" -d 'Say what was seen in the past: last night, at 03:12'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "demo" -d 'Watch a small misbehaving workload and report on it'
complete -c firstfin -n "__fish_firstfin_using_subcommand help; and not __fish_seen_subcommand_from doctor why trace report top record replay what-if serve history demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
