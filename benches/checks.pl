#!/usr/bin/perl
# Measures the processor time of all checks beside one scrape of postgres_exporter and one of pgbouncer_exporter, and prints a
# table. `./dev bench checks` runs it in a container of the lab. What PostgreSQL and PgBouncer spend on either is counted, too.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(sysconf _SC_CLK_TCK);
use Time::HiRes qw(time sleep);
require '/benches/lab.pl';

my ($ROUNDS, $PASSES) = (10, 3);
my $TICK = sysconf(_SC_CLK_TCK);

sub sh { my $out = `@_`; return $out }

sub row { print '| ', join(' | ', @_), " |\n" }

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[$#sorted / 2] }

# Seconds that servers and exporters have run so far, and what this script has started and waited for.
sub processor {
    my $ticks = 0;
    for my $path (glob '/proc/[0-9]*/stat') {
        open my $in, '<', $path or next;
        my ($pid, $name, $rest) = (<$in> // '') =~ /^(\d+) \((.*)\) (.*)/ or next;
        my @times = (split / /, $rest)[11 .. 14];
        if ($pid == $$) { $ticks += $times[2] + $times[3] }
        elsif ($name =~ /^(postgres|pgbouncer|prometheus-)/) { $ticks += $_ for @times }
    }
    return $ticks / $TICK;
}

# Milliseconds of processor time that one call of $work costs, without what the servers spend meanwhile anyway.
sub cost {
    my ($idle, $work) = @_;
    my ($before, $begin) = (processor(), time);
    $work->() for 1 .. $ROUNDS;
    # A backend's time is its postmaster's once it has ended.
    sleep 0.5;
    my $spent = processor() - $before - $idle * (time - $begin);
    return 1000 * $spent / $ROUNDS;
}

sub idle {
    my ($before, $begin) = (processor(), time);
    sleep 10;
    return (processor() - $before) / (time - $begin);
}

sub scrape {
    my ($port) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 5) or return '';
    print $socket "GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n";
    local $/;
    return <$socket> // '';
}

sub prepare {
    sleep 0.2 until sh(q(setpriv --reuid=postgres --regid=postgres --clear-groups psql -XAtc 'SELECT 1' 2>/dev/null)) eq "1\n";
    configure(more => "[node]\nhostname = 'db1'");
    # Three databases as an application has them, and its idle connections.
    my $psql = 'setpriv --reuid=postgres --regid=postgres --clear-groups psql -Xqv ON_ERROR_STOP=1';
    for my $database (qw(shop stock mail)) {
        system("$psql -c 'CREATE DATABASE $database'") == 0 or die "no database $database";
        my $tables = q(SELECT format('CREATE TABLE t%s (id bigserial PRIMARY KEY, at timestamptz, note text)', n) FROM generate_series(1, 100) AS n);
        system("echo \"$tables \\gexec\" | $psql -d $database") == 0 or die "no tables in $database";
    }
}

sub exporters {
    my $log = '/tmp/apt.log';
    system("(apt-get -qq -o Acquire::Retries=3 update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
        . " prometheus-postgres-exporter prometheus-pgbouncer-exporter) >$log 2>&1") == 0 or die "the exporters cannot be installed: " . sh("tail -n 3 $log");
    # The exporter's driver sends a setting that PgBouncer refuses otherwise.
    system(q(sed -i '/^\[pgbouncer\]/a ignore_startup_parameters = extra_float_digits' /etc/xdb-lab/pgbouncer.ini && sv restart pgbouncer >/dev/null)) == 0
        or die "PgBouncer does not restart";
    my $login = 'postgres:lab-password@127.0.0.1';
    $ENV{DATA_SOURCE_NAME} = "postgresql://$login:5432/postgres?sslmode=disable";
    $ENV{PGBOUNCER_EXPORTER_CONNECTION_STRING} = "postgres://$login:6432/pgbouncer?sslmode=disable";
    my @pids;
    for (['prometheus-postgres-exporter', 9187], ['prometheus-pgbouncer-exporter', 9127]) {
        my ($program, $port) = @$_;
        my $pid = fork() // die "fork: $!";
        if (!$pid) {
            open STDOUT, '>', "/tmp/$program.log";
            open STDERR, '>&', \*STDOUT;
            exec $program, "--web.listen-address=127.0.0.1:$port";
        }
        push @pids, $pid;
        my $deadline = time + 20;
        sleep 0.2 until scrape($port) =~ /^pg\w*_up 1$/m || time > $deadline;
        scrape($port) =~ /^pg\w*_up 1$/m or die "$program sees no server:\n" . sh("tail -n 5 /tmp/$program.log");
    }
    return @pids;
}

prepare();
my @pids = exporters();
my $xdb = 'setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/var/lib/postgresql xdb check';
my $checks = () = sh("$xdb list --json") =~ /"name":/g;
my %cost;
for (1 .. $PASSES) {
    my $idle = idle();
    push @{$cost{all}}, cost($idle, sub { sh("$xdb >/dev/null 2>&1") });
    push @{$cost{start}}, cost($idle, sub { sh("$xdb list >/dev/null 2>&1") });
    push @{$cost{postgres}}, cost($idle, sub { scrape(9187) });
    push @{$cost{pgbouncer}}, cost($idle, sub { scrape(9127) });
}
my %of = map { $_ => median(@{$cost{$_}}) } keys %cost;
my $peers = $of{postgres} + $of{pgbouncer};
my $rows = sub { my $rows = () = scrape($_[0]) =~ /^[a-z]/mg; $rows };
row('processor time, servers included', 'one', '× both scrapes');
row('---', '---', '---');
my @rows = (
    ["postgres_exporter, a scrape of " . $rows->(9187) . ' series', $of{postgres}],
    ["pgbouncer_exporter, a scrape of " . $rows->(9127) . ' series', $of{pgbouncer}],
    ["`xdb check`: $checks checks, its start and logins included", $of{all}],
    ['the same without the start of the program (`xdb check list`)', $of{all} - $of{start}],
);
row($_->[0], sprintf('%.1f ms', $_->[1]), sprintf('%.2f', $_->[1] / $peers)) for @rows;
kill TERM => @pids;
