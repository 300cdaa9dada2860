#!/usr/bin/perl
# Measures what the daemon answers over HTTP, and prints a table. `./dev bench http` runs it in a container of the lab, with
# one node that has a base backup. Each request is a connection of its own, as a scraper's or a check's is.
use strict;
use warnings;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);
require '/benches/lab.pl';

my ($ROUNDS, $SLOW) = (300, 500);

sub sh { my $out = `@_`; return $out }

sub get {
    my ($path) = @_;
    my $begin = time;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1:8009', Timeout => 3) or return;
    print $socket "GET $path HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    local $/;
    my $answer = <$socket> // '';
    my (undef, $body) = split /\r\n\r\n/, $answer, 2;
    return (time - $begin, $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 0, $body // '');
}

sub quantile {
    my ($share, @values) = @_;
    @values = sort { $a <=> $b } @values;
    return $values[int($share * $#values + 0.5)];
}

sub row { print '| ', join(' | ', @_), " |\n" }

sub prepare {
    sleep 0.2 until sh(q(setpriv --reuid=postgres --regid=postgres --clear-groups psql -XAtc 'SELECT 1' 2>/dev/null)) eq "1\n";
    configure(more => "[node]\nhostname = 'db1'\n[http]\nlisten = '127.0.0.1:8009'");
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', '/tmp/daemon.log';
        open STDERR, '>&', \*STDOUT;
        exec qw(setpriv --reuid=postgres --regid=postgres --init-groups xdb daemon);
    }
    for (1 .. 300) {
        my (undef, $code, $body) = get('/metrics');
        return $pid if $body && $body =~ /^xdb_base_backup_timestamp_seconds /m && $body =~ /^xdb_check_verdict/m;
        sleep 0.5;
    }
    die "the daemon has not seen a base backup:\n" . sh('tail /tmp/daemon.log');
}

sub measure {
    my (@paths) = @_;
    row('GET', 'median', '90 %', 'bytes');
    row('---', '---', '---', '---');
    for my $path (@paths) {
        my (@took, $bytes);
        for (1 .. $ROUNDS) {
            my ($took, $code, $body) = get($path);
            die "$path gives $code\n" if $code == 0 || $code == 500;
            push @took, $took;
            $bytes = length $body;
        }
        row("`$path`", map({ sprintf '%.2f ms', 1000 * quantile($_, @took) } 0.5, 0.9), $bytes);
    }
}

my $pid = prepare();
my (undef, undef, $metrics) = get('/metrics');
my $series = grep { !/^#/ } split /\n/, $metrics;
print "One node has $series series.\n\n";
measure('/replica', '/metrics', '/', '/badge/proven.svg');
my @slow = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1:8009', Timeout => 3) } 1 .. $SLOW;
print "\nThe same while $SLOW clients hold a connection and send nothing:\n\n";
measure('/replica', '/metrics', '/');
print "\nResident memory of the daemon: ", sh("grep VmRSS /proc/$pid/status | tr -s '\t ' ' '");
kill TERM => $pid;
