#!/usr/bin/perl
# One segment at a time, by the bare program's daemon and by `xdb wal-push`, in turn; then the client alone, against a
# socket that answers at once. archive.sh runs it as the database's user in the data directory.
use strict;
use warnings;
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(time sleep);

sub run {
    my @command = @_;
    my $begun = time;
    my $pid = fork() // die "fork: $!";
    if (!$pid) { exec @command or POSIX::_exit(127) }
    waitpid $pid, 0;
    die "@command ended with $?" if $?;
    return 1000 * (time - $begun);
}

sub quantile {
    my ($share, @values) = @_;
    @values = sort { $a <=> $b } @values;
    return $values[int($share * $#values + 0.5)];
}

my %took;
for my $segment (@ARGV) {
    push @{ $took{walrus} }, run(qw(walrus daemon-client --socket /tmp/walrus.sock wal-push), $segment);
    push @{ $took{xdb} }, run(qw(xdb wal-push), "pg_wal/$segment");
}
# Of the same segment by both: they differ by more among each other.
my $above = quantile(0.5, map { $took{xdb}[$_] - $took{walrus}[$_] } 0 .. $#{ $took{xdb} });
print "\n| one segment | median | 10 % | 90 % | above the bare daemon |\n| --- | --- | --- | --- | --- |\n";
for my $peer (qw(walrus xdb)) {
    my @values = @{ $took{$peer} };
    printf "| %s | %.1f ms | %.1f ms | %.1f ms | %.1f ms |\n", $peer eq 'xdb' ? 'xdb wal-push' : 'walrus daemon-client',
        quantile(0.5, @values), quantile(0.1, @values), quantile(0.9, @values), $peer eq 'xdb' ? $above : 0;
}

# The client alone: a state directory of its own, whose socket is this.
my $state = '/tmp/client';
mkdir $state;
unlink "$state/archive.sock";
my $server = IO::Socket::UNIX->new(Local => "$state/archive.sock", Listen => 8) or die "listen: $!";
my $pid = fork() // die "fork: $!";
if (!$pid) {
    while (my $client = $server->accept) {
        sysread $client, my $request, 255;
        # A segment that is called so is answered late, for its memory to be read.
        sleep 0.3 if $request =~ /^X.*7$/s && -e "$state/late";
        syswrite $client, "O\0\3";
    }
    exit 0;
}
$ENV{XDB_NODE_STATE_DIRECTORY} = $state;
my $segment = (grep { /7$/ } @ARGV)[0];
my (@client, @nothing);
for (1 .. 200) {
    push @client, run(qw(xdb wal-push), "pg_wal/$segment");
    push @nothing, run('/bin/true');
}
open my $late, '>', "$state/late" or die $!;
my $waiting = fork() // die "fork: $!";
if (!$waiting) { exec qw(xdb wal-push), "pg_wal/$segment" or POSIX::_exit(127) }
sleep 0.2;
open my $status, '<', "/proc/$waiting/status" or die $!;
my $text = join '', <$status>;
# All that is mapped, and what of it is no page of the program's file or a library, which other processes have mapped, too.
my ($peak) = $text =~ /VmHWM:\s+(\d+)/;
my ($own) = $text =~ /RssAnon:\s+(\d+)/;
waitpid $waiting, 0;
kill 'TERM', $pid;
waitpid $pid, 0;
printf "\n| the client alone | median | 90 %% | above /bin/true | peak RSS | its own |\n| --- | --- | --- | --- | --- | --- |\n| xdb wal-push | %.1f ms | %.1f ms | %.1f ms | %.1f MB | %.1f MB |\n",
    quantile(0.5, @client), quantile(0.9, @client), quantile(0.5, @client) - quantile(0.5, @nothing), $peak / 1024, $own / 1024;
