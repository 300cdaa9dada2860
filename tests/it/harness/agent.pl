# Runs one command after the other for the test that started it: `docker exec` for each would cost ten times as much.
#
# A request is its length (32 bits) and fields that end with NUL: the number of variables, their names and values, the command.
# The answer is the exit code, the length of stdout and that of stderr (32 bits each), and both of them.
use strict;
use warnings;
use IO::Select;
use POSIX ();

sub receive {
    my ($length) = @_;
    my $got = '';
    while (length $got < $length) {
        exit 0 if !sysread STDIN, $got, $length - length $got, length $got;
    }
    return $got;
}

sub run {
    my ($environment, @command) = @_;
    pipe(my $stdout, my $its_stdout) or die "pipe: $!";
    pipe(my $stderr, my $its_stderr) or die "pipe: $!";
    defined(my $child = fork) or die "fork: $!";
    if (!$child) {
        POSIX::setsid();
        open STDIN, '<', '/dev/null';
        open STDOUT, '>&', $its_stdout;
        open STDERR, '>&', $its_stderr;
        @ENV{keys %$environment} = values %$environment;
        exec { $command[0] } @command;
        print STDERR "$command[0]: $!\n";
        POSIX::_exit(127);
    }
    close $_ for $its_stdout, $its_stderr;
    my %said = ($stdout => '', $stderr => '');
    my $open = IO::Select->new($stdout, $stderr);
    while ($open->count) {
        for my $pipe ($open->can_read) {
            $open->remove($pipe) if !sysread $pipe, $said{$pipe}, 1 << 16, length $said{$pipe};
        }
    }
    waitpid $child, 0;
    my $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    return ($code, @said{$stdout, $stderr});
}

$| = 1;
binmode $_ for *STDIN, *STDOUT;
while (1) {
    my ($count, @fields) = split /\0/, receive(unpack 'N', receive(4)), -1;
    pop @fields;
    my %environment = splice @fields, 0, 2 * $count;
    my ($code, $stdout, $stderr) = run(\%environment, @fields);
    print pack('N3', $code, length $stdout, length $stderr), $stdout, $stderr;
}
