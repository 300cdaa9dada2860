#!/usr/bin/perl
# Measures restore tests and prints tables; `./dev bench restore` runs it as root in a container of the lab, where nothing else
# runs. Arguments pick the parts: drill replay clean hostile forecast dump. SCALE (pgbench), ROUNDS, SEGMENTS and DRILLS may be set.
use strict;
use warnings;
use File::Path qw(remove_tree);
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time sleep);
require '/benches/lab.pl';

my $BIN  = '/usr/lib/postgresql/17/bin';
my $DATA = '/var/lib/postgresql/17/main';
my $WORK = '/var/lib/postgresql/bench';
my ($SCALE, $ROUNDS, $SEGMENTS, $DRILLS) = map { $ENV{$_->[0]} || $_->[1] } [SCALE => 60], [ROUNDS => 5], [SEGMENTS => 72], [DRILLS => 50];

%ENV = (
    %ENV,
    WALG_S3_PREFIX => 's3://walg-test/main/pg17', WALG_COMPRESSION_METHOD => 'lz4', AWS_REGION => 'us-east-1',
    AWS_ENDPOINT => 'http://127.0.0.1:7000', AWS_S3_FORCE_PATH_STYLE => 'true', AWS_ACCESS_KEY_ID => 'lab', AWS_SECRET_ACCESS_KEY => 'lab-secret-key',
);

# --- running things --------------------------------------------------------------------------------

sub start {
    my @command = @_;
    my $pid = fork() // die "fork: $!";
    return $pid if $pid;
    setpgrp;
    open STDOUT, '>', '/tmp/bench.out';
    open STDERR, '>', '/tmp/bench.err';
    exec qw(setpriv --reuid=postgres --regid=postgres --init-groups env -C), $WORK, qw(HOME=/var/lib/postgresql USER=postgres), @command
        or POSIX::_exit(127);
}

# Runs a command as postgres; seconds, and the peak resident memory in MB of the process that is called NAME where one is given.
sub run {
    my ($name, @command) = @_;
    my ($began, $peak) = (time, 0);
    my $pid = start(@command);
    while (waitpid($pid, WNOHANG) == 0) {
        if ($name && open my $in, '<', "/proc/$pid/status") {
            my $text = join '', <$in>;
            $peak = $1 if $text =~ /^Name:\s+\Q$name\E$/m && $text =~ /^VmHWM:\s+(\d+) kB/m;
        }
        sleep 0.005;
    }
    my $took = time - $began;
    die "@command: " . qx(tail -n 5 /tmp/bench.err /tmp/bench.out) if $?;
    return ($took, $peak * 1024 / 1e6);
}

sub sql {
    my $query = shift;
    open my $out, '-|', qw(setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql psql -XAtqc), $query;
    chomp(my $answer = join '', <$out>);
    close $out or die "psql: $query";
    return $answer;
}

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[$#sorted / 2] }

sub latency {
    my $ms = shift;
    my $toxics = 'http://127.0.0.1:8474/proxies/s3/toxics';
    system qw(curl -s -o /dev/null -X DELETE), "$toxics/latency";
    system qw(curl -s -o /dev/null -d), qq({"name":"latency","type":"latency","attributes":{"latency":$ms}}), $toxics if $ms;
}

sub wait_archived {
    # Where nothing was written since the last switch there is no segment to end.
    sql(q(SELECT pg_logical_emit_message(true, 'bench', 'the last of its segment')));
    my $last = sql('SELECT pg_walfile_name(pg_switch_wal())');
    my $status = "$DATA/pg_wal/archive_status";
    sleep 0.1 while !-e "$status/$last.done";
}

# --- the cluster and its backup ----------------------------------------------------------------------

sub prepare {
    sleep 0.2 until eval { sql('SELECT 1') };
    configure(more => "[dump]\nrepository = 's3://pgdump-test/main'");
    system "install -d -o postgres -m 0700 $WORK";
    sql("ALTER SYSTEM SET $_") for 'archive_mode = on', q(archive_command = 'xdb wal-push "%p"'), 'max_wal_size = "8GB"', 'wal_keep_size = "8GB"', 'checkpoint_timeout = "1d"', 'archive_timeout = 0';
    system qw(sv -w 60 restart postgres);
    sleep 0.2 until eval { sql('SELECT 1') };
    run('', "$BIN/pgbench", '-i', '-q', '-s', $SCALE, 'postgres');
    run('', qw(xdb backup push --full));
}

# As many segments of transactions as are wanted, all archived.
sub write_wal {
    my $until = shift;
    my $begun = sql(q(SELECT pg_walfile_name(pg_current_wal_lsn())));
    my $count = sub { sql("SELECT ((pg_current_wal_lsn() - '0/0') / 16777216)::int") };
    my $first = $count->();
    while ($count->() - $first < $until) {
        run('', "$BIN/pgbench", qw(-n -c 4 -T 3 postgres));
        # Each page is written whole once more: days of checkpoints in some seconds.
        sql('CHECKPOINT');
    }
    wait_archived();
}

# What a careful person would write: the same work by the same program, and nothing that is not needed for it.
my $SCRIPT = <<'END';
set -eu
dir=$1
rm -rf "$dir"; mkdir -m 0700 "$dir" "$dir/data"
walrus backup-fetch "$dir/data" LATEST
cat >"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
port = 5432
unix_socket_directories = '$dir'
restore_command = 'walrus wal-fetch "%f" "%p"'
recovery_target_timeline = 'latest'
hot_standby = off
archive_mode = off
shared_buffers = 128MB
autovacuum = off
fsync = off
full_page_writes = off
synchronous_commit = off
jit = off
CONF
: >"$dir/data/postgresql.auto.conf"
echo 'local all all trust' >"$dir/data/pg_hba.conf"
: >"$dir/data/pg_ident.conf"
: >"$dir/data/recovery.signal"
PGDATA=$dir/data postgres -D "$dir/data" >"$dir/log" 2>&1 &
until psql -h "$dir" -XAtqc 'SELECT NOT pg_is_in_recovery()' postgres 2>/dev/null | grep -q t; do sleep 0.05; done
# What the kernel still holds is no restored cluster yet.
sync -f "$dir/data"
pg_amcheck -h "$dir" --all --install-missing
pg_ctl -s -w -m fast -D "$dir/data" stop
pg_checksums --check -D "$dir/data" >/dev/null
rm -rf "$dir"
END

sub drill {
    write_wal(8);
    my (@script, @xdb, $peak);
    $peak = 0;
    local $ENV{PATH} = "$BIN:$ENV{PATH}";
    for (1 .. $ROUNDS) {
        my ($took) = run('', 'sh', '-c', $SCRIPT, 'drill', "$WORK/script");
        push @script, $took;
        my ($again, $mb) = run('xdb', qw(xdb restore-test --level check));
        push @xdb, $again;
        $peak = $mb if $mb > $peak;
    }
    printf "\n| a drill at level check, %s | median of %d | × the script | xdb's own peak RSS |\n| --- | --- | --- | --- |\n",
        sql('SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database'), $ROUNDS;
    printf "| shell script | %.2f s | 1.00 | |\n", median(@script);
    printf "| xdb restore-test | %.2f s | %.2f | %.1f MB |\n", median(@xdb), median(@xdb) / median(@script), $peak;
}

my $peak = 0; # of the restore tests whose replay is measured, MB

# --- replay ------------------------------------------------------------------------------------------

sub replay {
    replay_of('a table whose rows are updated', sub {
        sql('UPDATE pgbench_accounts SET abalance = abalance + 1');
        sql('VACUUM pgbench_accounts');
    });
    run('', 'createdb', 'loaded');
    replay_of('a bulk load', sub { run('', "$BIN/pgbench", qw(-i -q -s 25 loaded)) });
}

# Replays what WRITE writes into at least SEGMENTS segments, from a backup of just before.
sub replay_of {
    my ($what, $write) = @_;
    run('', qw(xdb backup push --full));
    my $count = sub { sql("SELECT ((pg_current_wal_lsn() - '0/0') / 16777216)::int") };
    my $first = $count->();
    $write->() while $count->() - $first < $SEGMENTS;
    wait_archived();
    my ($fetched, $local) = ("$WORK/fetched", "$WORK/wal");
    remove_tree($fetched, $local);
    run('', 'walrus', 'backup-fetch', $fetched, 'LATEST');
    system qw(install -d -o postgres -m 0700), $local;
    # What `cp` reads: the segments as they are in the repository, uncompressed.
    for my $name (glob "$DATA/pg_wal/0*") { system 'cp', $name, $local if $name =~ m{/[0-9A-F]{24}$} }
    system qw(chown -R postgres:), $local;
    latency(30);
    yield_all();
    my %took;
    my $segments = 0;
    my @peers = (['cp' => "cp $local/%f %p"], ['walrus wal-fetch' => 'walrus wal-fetch "%f" "%p"'], ['xdb restore-test' => undef]);
    for (1 .. $ROUNDS) {
        for (@peers) {
            my ($peer, $command) = @$_;
            my ($seconds, $count) = $command ? recover($fetched, $command) : (recovery_of_drill(), 0);
            push @{ $took{$peer} }, $seconds;
            $segments = $count if $count > $segments;
        }
    }
    latency(0);
    my $base = median(@{ $took{cp} });
    printf "\n| replay of %s, %d segments, 30 ms S3 latency, median of %d | a segment | × cp |\n| --- | --- | --- |\n", $what, $segments, $ROUNDS;
    printf "| %s | %.0f ms | %.2f |\n", $_->[0], median(@{ $took{ $_->[0] } }) / $segments * 1000, median(@{ $took{ $_->[0] } }) / $base
        for @peers;
    printf "xdb's own peak RSS: %.1f MB\n", $peak;
}

# A restore test yields to all else on its machine, where S3 would not be: S3 here, and each peer, come no sooner than it.
sub yield_all {
    for my $pid ($$, split ' ', `pgrep -d ' ' 'versitygw|toxiproxy'`) {
        system "renice -n 19 -p $_ >/dev/null" for map { m{(\d+)$} } glob "/proc/$pid/task/*";
    }
}

# Seconds that a restore test says its recovery took; notes its own peak memory.
sub recovery_of_drill {
    remove_tree("$WORK/data");
    system 'sync';
    my (undef, $mb) = run('xdb', qw(xdb restore-test --level start --json));
    $peak = $mb if $mb > $peak;
    open my $in, '<', '/tmp/bench.out' or die $!;
    my $report = decode_json(join '', <$in>);
    return (grep { $_->{name} eq 'recover' } @{ $report->{steps} })[0]{secs};
}

# Seconds of the recovery and how many segments it restored.
sub recover {
    my ($fetched, $restore_command) = @_;
    my $data = "$WORK/data";
    remove_tree($data);
    system 'cp', '-a', $fetched, $data;
    system 'sync';
    my %files = ('postgresql.auto.conf' => '', 'pg_hba.conf' => "local all all trust\n", 'pg_ident.conf' => '', 'recovery.signal' => '');
    $files{'postgresql.conf'} = <<"END";
listen_addresses = ''
unix_socket_directories = '$WORK'
restore_command = '$restore_command'
hot_standby = off
archive_mode = off
shared_buffers = 128MB
fsync = off
full_page_writes = off
log_min_messages = log
END
    for my $name (keys %files) {
        open my $out, '>', "$data/$name";
        print $out $files{$name};
    }
    system qw(chown -R postgres:), $data;
    # The last one's would do for this one's.
    unlink '/tmp/bench.err';
    my $began = time;
    my $pid = start("$BIN/postgres", '-D', $data);
    sleep 0.02 until log_says(qr/database system is ready to accept connections/) || waitpid($pid, WNOHANG) > 0;
    my $took = time - $began;
    my $count = () = log_text() =~ /restored log file "[0-9A-F]{24}"/g;
    die log_text() unless log_says(qr/database system is ready to accept connections/);
    kill INT => $pid;
    waitpid $pid, 0;
    return ($took, $count);
}

sub log_text { open my $in, '<', '/tmp/bench.err' or return ''; local $/; return <$in> // '' }
sub log_says { return log_text() =~ shift }

# --- clean drills ------------------------------------------------------------------------------------

sub clean {
    my ($cluster) = (@_, '');
    my $writer = start("$BIN/pgbench", qw(-n -c 1 -R 50 -T 36000 postgres));
    my (%ended, @raised);
    for my $number (1 .. $DRILLS) {
        sql('SELECT pg_switch_wal()');
        my $pid = fork() // die;
        if (!$pid) {
            open STDOUT, '>', '/tmp/drill.json';
            open STDERR, '>', '/tmp/drill.err';
            exec qw(setpriv --reuid=postgres --regid=postgres --init-groups env -C /tmp -u PGOPTIONS HOME=/var/lib/postgresql USER=postgres xdb restore-test --json);
        }
        waitpid $pid, 0;
        my $status = $? >> 8;
        $ended{$status}++;
        open my $in, '<', '/tmp/drill.json';
        my $report = decode_json(join '', <$in>);
        push @raised, "drill $number: $report->{reason}" if $report->{reason};
    }
    kill TERM => $writer;
    waitpid $writer, 0;
    printf "\n| %d drills at level full while pgbench writes%s | exit 0 | others |\n| --- | --- | --- |\n", $DRILLS, $cluster;
    printf "| %s | %d | %d |\n", scalar(@raised) ? join('; ', @raised) : 'nothing was raised', $ended{0} // 0, $DRILLS - ($ended{0} // 0);
}

# The same where server, database and role set what changes a session.
sub hostile {
    my %hostile = (
        default_transaction_isolation => 'serializable', default_transaction_read_only => 'on', default_transaction_deferrable => 'on',
        statement_timeout => 1, lock_timeout => 1, idle_session_timeout => 1, idle_in_transaction_session_timeout => 1,
        search_path => 'hostile', client_encoding => 'LATIN1', DateStyle => 'German, DMY', IntervalStyle => 'sql_standard',
        TimeZone => 'Asia/Kolkata', bytea_output => 'escape', extra_float_digits => -15, quote_all_identifiers => 'on',
        client_min_messages => 'debug5', row_security => 'off', standard_conforming_strings => 'off', exit_on_error => 'on',
    );
    # Of the sessions that set and write; a drill does without.
    local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'default_transaction_read_only=off', 'default_transaction_deferrable=off',
        'default_transaction_isolation=read\\ committed', 'client_min_messages=error', 'search_path=public', 'exit_on_error=off',
        map { "${_}_timeout=0" } qw(statement lock idle_session idle_in_transaction_session);
    for my $object ('SYSTEM', 'DATABASE postgres', 'DATABASE template1', 'ROLE postgres') {
        sql("ALTER $object SET $_ = '$hostile{$_}'") for sort keys %hostile;
    }
    sql('SELECT pg_reload_conf()');
    run('', qw(env -u PGOPTIONS xdb backup push --full));
    clean(', with hostile settings of server, database and role');
    for my $object ('ROLE postgres', 'DATABASE template1', 'DATABASE postgres', 'SYSTEM') {
        sql("ALTER $object RESET $_") for sort keys %hostile;
    }
    sql('SELECT pg_reload_conf()');
}

# --- forecast ----------------------------------------------------------------------------------------

# Ten restores for good, from no WAL since the backup to a busy day's, each beside what `xdb restore --plan` said of it. Before
# that five restore tests, as of five nights: what a forecast has to go by.
sub forecast {
    for my $segments (0, 3, 8, 20, 40) {
        run('', qw(xdb backup push --full));
        write_wal($segments);
        run('', qw(xdb restore-test --level start));
    }
    run('', qw(xdb backup push --full));
    my ($target, $close, @lines) = ("$WORK/restored", 0);
    my $json = sub { open my $in, '<', '/tmp/bench.out' or die $!; decode_json(join '', <$in>) };
    for my $segments (0, 1, 2, 3, 4, 6, 8, 10, 12, 16) {
        write_wal($segments);
        remove_tree($target);
        system 'sync';
        run('', qw(xdb restore --json --plan --target-dir), $target);
        my $plan = $json->();
        run('', qw(xdb restore --json --target-dir), $target);
        my $took = $json->()->{secs};
        my $off = $took / $plan->{expected_secs} - 1;
        $close++ if abs($off) <= 0.25;
        push @lines, sprintf '| %d | %.1f s | %.1f to %.1f s | %.1f s | %+.0f %% |', $plan->{wal}{segments}, $plan->{expected_secs},
            $plan->{expected_low_secs}, $plan->{expected_high_secs}, $took, $off * 100;
    }
    printf "\n| segments to replay | forecast | range | restore | off |\n| --- | --- | --- | --- | --- |\n%s\n%d of 10 are within 25 %%\n",
        join("\n", @lines), $close;
}

# --- dump --------------------------------------------------------------------------------------------

# One database out of a dump set, beside the download of the same object and pg_restore from that file, in turn.
sub dump {
    sql('CREATE DATABASE bench');
    run('', "$BIN/pgbench", '-i', '-q', '-s', $SCALE, 'bench');
    run('', qw(xdb dump push));
    my ($object) = glob '/srv/s3/pgdump-test/main/*/bench.dump';
    (my $key = $object) =~ s{^/srv/s3/}{};
    my @curl = (qw(curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key -o), "$WORK/bench.dump", "http://127.0.0.1:7000/$key");
    my ($peak, %took) = (0);
    for (1 .. $ROUNDS) {
        sql('CREATE DATABASE by_hand');
        push @{ $took{download} }, (run('', @curl))[0];
        push @{ $took{pg_restore} }, (run('', "$BIN/pg_restore", qw(-d by_hand), "$WORK/bench.dump"))[0];
        sql('DROP DATABASE by_hand');
        my ($secs, $rss) = run('xdb', qw(xdb dump restore bench));
        push @{ $took{xdb} }, $secs;
        $peak = $rss if $rss > $peak;
        sql('DROP DATABASE bench_restored');
    }
    my ($download, $restore, $xdb) = map { median(@{ $took{$_} }) } qw(download pg_restore xdb);
    my $both = $download + $restore;
    printf "\n| one database, %.0f MB stored, median of %d | time | × download and pg_restore |\n| --- | --- | --- |\n", (-s $object) / 1e6, $ROUNDS;
    printf "| download | %.2f s | |\n| pg_restore from the file | %.2f s | |\n", $download, $restore;
    printf "| both | %.2f s | 1.00 |\n| xdb dump restore, %.1f MB peak RSS | %.2f s | %.2f |\n", $both, $peak, $xdb, $xdb / $both;
}

$| = 1;
prepare();
my %parts = (drill => \&drill, replay => \&replay, clean => \&clean, hostile => \&hostile, forecast => \&forecast, dump => \&dump);
for my $part (@ARGV ? @ARGV : qw(drill clean hostile replay forecast dump)) {
    ($parts{$part} // die "there is no part $part: drill, replay, clean, hostile, forecast or dump\n")->();
}
