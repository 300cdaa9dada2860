#!/usr/bin/perl
# Measures `xdb wait` beside pg_isready and psql, and prints a table. `./dev bench wait` runs it in a container of
# the lab: PostgreSQL behind PgBouncer (server_login_retry=1) behind HAProxy on 15432, and nothing else running.
use strict;
use warnings;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time sleep);

# The real programs: Debian's pg_isready and psql are Perl wrappers around them.
my $BIN = '/usr/lib/postgresql/17/bin';
my @WAY = (-h => '127.0.0.1', -p => 15432, -U => 'postgres', -d => 'postgres');
my $QUERY = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";
my @WAIT  = qw(xdb wait --host 127.0.0.1 --port 15432);
my @PSQL  = ("$BIN/psql", '-X', '-A', '-t', '-q', @WAY, '-c', $QUERY);
my ($ROUNDS, $RESTARTS, $PROBES, $SECONDS) = (300, 20, 100, 60);

$ENV{PGPASSWORD} = 'lab-password';
# All of xdb's configuration is in the environment, as for an application's unit.
$ENV{XDB_CONFIG} = '/dev/null';

sub start {
    my @command = @_;
    my $pid = fork() // die "fork: $!";
    return $pid if $pid;
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    exec @command or POSIX::_exit(127);
}

sub run {
    waitpid start(@_), 0;
    return $? == 0;
}

sub quantile {
    my ($share, @values) = @_;
    @values = sort { $a <=> $b } @values;
    return $values[int($share * $#values + 0.5)];
}

sub row { print '| ', join(' | ', @_), " |\n" }

sub ms { sprintf '%.1f ms', 1000 * shift }

sub ready {
    my %command = (
        'xdb wait'   => [@WAIT],
        'pg_isready' => ["$BIN/pg_isready", '-q', @WAY],
        'psql -c'    => [@PSQL],
    );
    my (%took, %cpu);
    for my $round (1 .. $ROUNDS) {
        # In turn, so that whatever else the machine does meets all three alike.
        for my $name (sort keys %command) {
            my @before = times;
            my $begin  = time;
            run(@{ $command{$name} }) or die "$name failed\n";
            push @{ $took{$name} }, time - $begin;
            my @after = times;
            $cpu{$name} += $after[2] - $before[2] + $after[3] - $before[3];
        }
    }
    row('ready server', 'median', '10 %', '90 %', 'CPU a call', '× pg_isready', '× psql -c');
    row(('---') x 7);
    for my $name (sort keys %command) {
        my @values = @{ $took{$name} };
        my $median = quantile(0.5, @values);
        my $times  = sub { sprintf '%.2f', $median / quantile(0.5, @{ $took{ $_[0] } }) };
        row($name, ms($median), ms(quantile(0.1, @values)), ms(quantile(0.9, @values)),
            ms($cpu{$name} / $ROUNDS), $times->('pg_isready'), $times->('psql -c'));
    }
    print "\n";
}

sub reaction {
    my @behind;
    for my $round (1 .. $RESTARTS) {
        run(@PSQL) or die "not ready before restart $round\n";
        run(qw(sv -w 30 stop postgres)) or die "PostgreSQL does not stop\n";
        my $probe = start(@WAIT, '--timeout', 60);
        my $up_at = time + 2 + rand 3;
        my ($starts, $reference, $ready);
        # Full logins every 20 ms, one at a time; PgBouncer may hold one back until PostgreSQL is there.
        my $login;
        my $next = time;
        until ($reference && $ready) {
            if (!$starts && time >= $up_at) {
                $starts = start(qw(sv up postgres));
            }
            if (!$login && !$reference && time >= $next) {
                $next  = time + 0.02;
                $login = start(@PSQL);
            }
            while ((my $pid = waitpid -1, WNOHANG) > 0) {
                my $good = $? == 0;
                if ($pid == $probe) {
                    $good or die "the probe failed\n";
                    $ready = time;
                }
                elsif ($login && $pid == $login) {
                    $reference = time if $good;
                    undef $login;
                }
            }
            sleep 0.0005;
        }
        push @behind, $ready - $reference;
    }
    row('reaction after the first success of a login loop', 'median', 'worst', 'best');
    row(('---') x 4);
    row("$RESTARTS restarts of PostgreSQL", ms(quantile(0.5, @behind)), ms(quantile(1, @behind)), ms(quantile(0, @behind)));
    print "\n";
}

sub crowd {
    # By name, as applications come: each attempt looks it up.
    open my $hosts, '>>', '/etc/hosts' or die $!;
    print $hosts "127.0.0.1 nobody.internal\n";
    close $hosts;
    my @before = times;
    my $begin  = time;
    my %peak;
    my @probes = map { start(qw(xdb wait --host nobody.internal --port 1 --timeout), $SECONDS) } 1 .. $PROBES;
    while (time - $begin < $SECONDS - 2) {
        sleep 10;
        for my $pid (@probes) {
            open my $status, '<', "/proc/$pid/status" or next;
            for (<$status>) { $peak{$pid} = $1 / 1024 if /^VmHWM:\s+(\d+)/ }
        }
    }
    waitpid $_, 0 for @probes;
    my $took = time - $begin;
    my @after = times;
    my $cpu = $after[2] - $before[2] + $after[3] - $before[3];
    row("$PROBES probes for $SECONDS s on a refused port", 'CPU together', 'of one core', 'peak RSS, median', 'peak RSS, worst');
    row(('---') x 5);
    row('xdb wait', sprintf('%.2f s', $cpu), sprintf('%.1f %%', 100 * $cpu / $took),
        map { sprintf '%.1f MB', quantile($_, values %peak) * 1.048576 } 0.5, 1);
    print "\n";
}

my %parts = (ready => \&ready, reaction => \&reaction, crowd => \&crowd);
# There is no S3 here, and an archiver that fails would be in the way.
system qw(setpriv --reuid=postgres --regid=postgres --init-groups), "$BIN/psql", qw(-X -q -o /dev/null -c),
    "ALTER SYSTEM SET archive_command = 'true'", '-c', 'SELECT pg_reload_conf()';
my @asked = @ARGV ? @ARGV : qw(ready reaction crowd);
for my $part (@asked) {
    my $measure = $parts{$part} or die "there is no $part; there are: ready, reaction, crowd\n";
    $measure->();
}
