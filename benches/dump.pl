#!/usr/bin/perl
# Measures dumps and prints tables; `./dev bench dump` runs it as root in a container of the lab, where nothing else runs.
# Arguments pick the parts: one large. ROUNDS and MEGABYTES (of the database) may be set; `large` streams GIGABYTES.
# Peers that Debian packages are installed first, where that can be done; the others are left out.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time sleep);
require '/benches/lab.pl';

$| = 1;
my $BIN = '/usr/lib/postgresql/17/bin';
my ($ROUNDS, $MEGABYTES, $GIGABYTES) = map { $ENV{$_->[0]} || $_->[1] } [ROUNDS => 5], [MEGABYTES => 1500], [GIGABYTES => 20];
my @AS = qw(setpriv --reuid=postgres --regid=postgres --init-groups env -C /tmp HOME=/var/lib/postgresql USER=postgres);
# As xdb's own children are: what is measured is how the work is done, and not who comes first.
my $MODEST = 'nice -n 19';
my $ACCOUNT = qq([cluster]\naccount = "test");

%ENV = (
    %ENV, PGHOST => '127.0.0.1', PGUSER => 'postgres', PGPASSWORD => 'lab-password',
    AWS_ACCESS_KEY_ID => 'lab', AWS_SECRET_ACCESS_KEY => 'lab-secret-key', AWS_DEFAULT_REGION => 'us-east-1', AWS_EC2_METADATA_DISABLED => 'true',
    RCLONE_CONFIG_LAB_TYPE => 's3', RCLONE_CONFIG_LAB_PROVIDER => 'Other', RCLONE_CONFIG_LAB_ENDPOINT => 'http://127.0.0.1:7070',
    RCLONE_CONFIG_LAB_ACCESS_KEY_ID => 'lab', RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY => 'lab-secret-key', RCLONE_CONFIG_LAB_REGION => 'us-east-1',
);

sub sql {
    my ($database, $query) = @_;
    open my $out, '-|', @AS, "$BIN/psql", '-XAtqd', $database, '-c', $query;
    chomp(my $answer = join '', <$out>);
    close $out or die "psql: $query";
    return $answer;
}

# Runs a line of bash as postgres; seconds, and the peak resident memory in MB of the process that is called NAME.
sub run {
    my ($name, $line) = @_;
    my ($began, $peak) = (time, 0);
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', '/tmp/bench.out';
        open STDERR, '>', '/tmp/bench.err';
        exec @AS, qw(bash -o pipefail -c), $line or POSIX::_exit(127);
    }
    while (waitpid($pid, WNOHANG) == 0) {
        for my $status ($name ? glob '/proc/[0-9]*/status' : ()) {
            open my $in, '<', $status or next;
            my $text = join '', <$in>;
            $peak = $1 if $text =~ /^Name:\s+\Q$name\E$/m && $text =~ /^VmHWM:\s+(\d+) kB/m && $1 > $peak;
        }
        sleep 0.02;
    }
    my $took = time - $began;
    die "$line: " . qx(tail -n 5 /tmp/bench.err) if $?;
    return ($took, $peak * 1024 / 1e6);
}

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[$#sorted / 2] }

# Rows as applications have them: they compress to about a third, and some are wide.
sub fill {
    sql('postgres', 'CREATE DATABASE shop');
    sql('shop', q(CREATE TABLE orders (id bigint PRIMARY KEY, customer int, at timestamptz, state text, note text, hash text)));
    my $rows = int($MEGABYTES * 1e6 / 234);
    sql('shop', qq(INSERT INTO orders SELECT i, i % 5000, '2026-01-01'::timestamptz + i * interval '1 s',
        (ARRAY['new','paid','sent','back'])[1 + i % 4], repeat('note of order ' || i || ' ', 4), md5(i::text) || md5((i * 7)::text)
        FROM generate_series(1, $rows) AS i));
    sql('shop', 'VACUUM (ANALYZE, FREEZE) orders');
    sql('shop', 'CHECKPOINT');
    return sql('shop', q(SELECT round(pg_table_size('orders') / 1e6)));
}

sub one {
    my $megabytes = fill();
    my $dump = "$MODEST $BIN/pg_dump -Fc -Z zstd:3 shop";
    my %peers = (
        'pg_dump -Fc -Z zstd:3 > /dev/null' => [undef, "$dump >/dev/null"],
        'xdb dump push' => ['xdb', 'xdb dump push --database shop --json'],
    );
    my @order = ('pg_dump -Fc -Z zstd:3 > /dev/null', 'xdb dump push');
    my $installed = sub { system("command -v $_[0] >/dev/null || apt-get install -qy --no-install-recommends $_[1] >/dev/null 2>&1") == 0 };
    system 'apt-get update -qq >/dev/null 2>&1';
    if ($installed->(qw(aws awscli))) {
        push @order, my $name = '… | aws s3 cp -';
        $peers{$name} = ['aws', "$dump | aws --endpoint-url http://127.0.0.1:7070 s3 cp - s3://pgdump-test/peer/aws.dump --expected-size 3000000000"];
    }
    if ($installed->(qw(rclone rclone))) {
        push @order, my $name = '… | rclone rcat';
        $peers{$name} = ['rclone', "$dump | rclone rcat --s3-no-check-bucket lab:pgdump-test/peer/rclone.dump"];
    }
    my (%took, %peak);
    for my $round (0 .. $ROUNDS) {
        for my $name (@order) {
            my ($process, $line) = @{$peers{$name}};
            my ($took, $peak) = run($process, $line);
            # The first round only warms the caches.
            next if !$round;
            push @{$took{$name}}, $took;
            $peak{$name} = $peak if $peak > ($peak{$name} // 0);
        }
        system 'rm -rf /srv/s3/pgdump-test/*';
    }
    my $least = median(@{$took{$order[0]}});
    print "| one database, $megabytes MB, median of $ROUNDS | time | × pg_dump | peak RSS |\n| --- | --- | --- | --- |\n";
    printf "| %s | %.2f s | %.2f | %s |\n", $_, median(@{$took{$_}}), median(@{$took{$_}}) / $least, $peak{$_} ? sprintf('%.1f MB', $peak{$_}) : '' for @order;
    print "\n";
}

# Between xdb and S3: parts are read and dropped, and the object that they make is never put together; all else goes on to S3.
sub drop_parts {
    my $port = shift;
    my $pid = fork() // die "fork: $!";
    return $pid if $pid;
    $SIG{CHLD} = 'IGNORE';
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 64, ReuseAddr => 1) or die "listen: $!";
    while (my $client = $listener->accept) {
        next if fork;
        binmode $client;
        while (serve($client)) { }
        POSIX::_exit(0);
    }
}

# One request; whether the connection is kept.
sub serve {
    my $client = shift;
    my $head = '';
    while ($head !~ /\r\n\r\n$/) { defined(my $line = <$client>) or return; $head .= $line }
    my ($length) = $head =~ /^content-length: *(\d+)/mi;
    my ($target) = $head =~ m{^\S+ (\S+)};
    my $drops = $target =~ /partNumber=/ && $target =~ /large\.dump/;
    my ($left, $body) = ($length // 0, '');
    while ($left > 0) {
        my $read = read($client, my $piece, $left < 1 << 20 ? $left : 1 << 20) or return;
        $left -= $read;
        $body .= $piece if !$drops;
    }
    my $answer = sub { print $client "HTTP/1.1 200 OK\r\n$_[0]content-length: " . length($_[1]) . "\r\n\r\n$_[1]"; $client->flush; 1 };
    return $answer->(qq(etag: "0123456789abcdef0123456789abcdef"\r\n), '') if $drops;
    return $answer->('', '<CompleteMultipartUploadResult><Key>k</Key><ETag>"x"</ETag></CompleteMultipartUploadResult>')
        if $head =~ /^POST/ && $target =~ /uploadId=/ && $target =~ /large\.dump/;
    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1:7070') or return;
    $head =~ s/\r\n\r\n$/\r\nconnection: close\r\n\r\n/;
    print $server $head, $body;
    $server->flush;
    while (read($server, my $piece, 1 << 16)) { print $client $piece }
    return;
}

# A program in the place of pg_dump writes more than any lab has room for: what is measured is memory, and how fast xdb sends.
sub large {
    my $directory = '/tmp/large';
    system "rm -rf $directory && mkdir -p $directory && cp -s $BIN/* $directory/ && rm $directory/pg_dump";
    open my $out, '>', "$directory/pg_dump";
    print $out <<"END";
#!/bin/bash
case " \$* " in *" --version "* | *" --file="*) exec $BIN/pg_dump "\$@" ;; esac
exec head -c ${GIGABYTES}G /dev/zero
END
    close $out;
    system "chmod 755 $directory/pg_dump";
    sql('postgres', 'CREATE DATABASE large');
    configure(port => 7071, postgres => qq(bin_directory = "$directory"), more => $ACCOUNT);
    my $sink = drop_parts(7071);
    sleep 0.5;
    my ($took, $peak) = run('xdb', 'xdb dump push --database large --json');
    kill TERM => $sink;
    printf "| a stream of %d GiB, parts dropped | xdb's peak RSS |\n| --- | --- |\n| %.1f s, %.0f MB/s | %.1f MB |\n\n",
        $GIGABYTES, $took, $GIGABYTES * 1073.7 / $took, $peak;
}

sleep 0.2 until eval { sql('postgres', 'SELECT 1') };
configure(port => 7070, more => $ACCOUNT);
my %parts = (one => \&one, large => \&large);
$parts{$_}->() for @ARGV ? @ARGV : qw(one large);
