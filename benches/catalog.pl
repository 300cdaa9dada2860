#!/usr/bin/perl
# Measures how a large archive is read, and prints a table: 50,000 WAL objects on versitygw, and a million through a
# listing that is made up here. `./dev bench catalog` runs it in a container of the lab where only S3 runs.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time sleep);

my ($STORED, $MILLION) = (50_000, 1_000_000);
my ($BUCKET, $ROUNDS, $PORT) = ('/srv/s3/walg-test', 5, 7071);
my $BACKUP   = 'base_000000010000000000000000';
my $SENTINEL = '{"LSN":40,"FinishLSN":80,"PgVersion":170011,"SystemIdentifier":7,"CompressedSize":1000,"UncompressedSize":4000}';

# As many bytes as the sentinel counted; a smaller control file counts as cut.
my %PARTS = ('part_001.tar.lz4' => 800, 'pg_control.tar.lz4' => 200);

$ENV{AWS_EC2_METADATA_DISABLED} = 'true';

sub row { print '| ', join(' | ', @_), " |\n" }

sub quantile {
    my ($share, @values) = @_;
    @values = sort { $a <=> $b } @values;
    return $values[int($share * $#values + 0.5)];
}

sub segment {
    my $number = shift;
    return sprintf '%08X%08X%08X', 1, $number >> 8, $number & 255;
}

sub write_file {
    my ($path, $content) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    print $file $content;
    close $file or die "$path: $!\n";
}

# xdb's settings for an S3 at `port`, with a memory of its own.
sub configure {
    my ($name, $port) = @_;
    mkdir "/tmp/state-$name";
    write_file("/tmp/$name.toml", <<"END");
[cluster]
name = "main"
[node]
state_directory = "/tmp/state-$name"
[s3]
region = "us-east-1"
endpoint = "http://127.0.0.1:$port"
force_path_style = true
access_key_id = "lab"
secret_access_key = "lab-secret-key"
[archive]
repository = "s3://walg-test/$name"
END
    chmod 0600, "/tmp/$name.toml";
}

sub lines_of {
    my $path = shift;
    open my $file, '<', $path or return 0;
    # versitygw writes a banner, too.
    return scalar grep { /\| (GET|HEAD|PUT) \|/ } <$file>;
}

# Runs xdb; gives the seconds that it took, its peak RSS in MB, and the requests that the server wrote into `log`.
sub measure {
    my ($name, $log, @command) = @_;
    my $before = lines_of($log);
    my $begin  = time;
    my $pid    = fork() // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', '/dev/null';
        exec 'xdb', '--config', "/tmp/$name.toml", @command or POSIX::_exit(127);
    }
    my $peak = 0;
    until (waitpid($pid, WNOHANG) > 0) {
        if (open my $status, '<', "/proc/$pid/status") {
            for (<$status>) { $peak = $1 * 1024 / 1e6 if /^VmHWM:\s+(\d+)/ }
        }
        sleep 0.002;
    }
    my ($code, $took) = ($? >> 8, time - $begin);
    $code == 0 or die "xdb @command: exit code $code\n";
    # The log is written a moment after the answer.
    sleep 0.2;
    return ($took, $peak, lines_of($log) - $before);
}

sub told { return (sprintf('%.2f s', $_[0]), $_[2], sprintf '%.1f MB', $_[1]) }

sub table {
    my ($what, $name, $log) = @_;
    row($what, 'time', 'requests', 'peak RSS');
    row(('---') x 4);
    row('first read: `archive verify`', told(measure($name, $log, qw(archive verify))));
    for my $later (['later read: `backup list`', qw(backup list)], ['`archive verify --cached`', qw(archive verify --cached)]) {
        my ($label, @command) = @$later;
        my @runs = map { [measure($name, $log, @command)] } 1 .. $ROUNDS;
        my @worst = map { my $at = $_; quantile(1, map { $_->[$at] } @runs) } 0 .. 2;
        row("$label, worst of $ROUNDS", told(@worst));
    }
    print "\n";
}

sub stored {
    my $repository = "$BUCKET/stored";
    mkdir $_ or die "$_: $!\n" for $repository, "$repository/wal_005", "$repository/basebackups_005", "$repository/basebackups_005/$BACKUP",
        "$repository/basebackups_005/$BACKUP/tar_partitions";
    write_file("$repository/basebackups_005/$BACKUP/tar_partitions/$_", 'x' x $PARTS{$_}) for keys %PARTS;
    write_file("$repository/basebackups_005/${BACKUP}_backup_stop_sentinel.json", $SENTINEL);
    for (0 .. $STORED - 1) {
        my $path = "$repository/wal_005/" . segment($_) . '.lz4';
        write_file($path, 'x' x 100);
        # Smaller than this no whole segment is; a file with a hole takes no room.
        truncate $path, 70_000 or die "$path: $!\n";
    }
    configure('stored', 7070);
    table("$STORED WAL objects on versitygw", 'stored', '/var/log/xdb-lab/s3.log');
}

# --- a listing without objects --------------------------------------------------------------------

sub xml { return '<?xml version="1.0" encoding="UTF-8"?>' . shift }

sub object {
    my ($key, $size) = @_;
    return "<Contents><Key>$key</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
        . "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>$size</Size><StorageClass>STANDARD</StorageClass></Contents>";
}

# A page of `ListObjectsV2`; the token is the last key of the page before.
sub page {
    my %asked = @_;
    my ($prefix, $content, $more) = ($asked{prefix} // '', '', '');
    if ($prefix eq 'million/basebackups_005/') {
        $content = join '', map { object("$prefix$BACKUP/tar_partitions/$_", $PARTS{$_}) } sort keys %PARTS;
        $content .= object("$prefix${BACKUP}_backup_stop_sentinel.json", length $SENTINEL);
    }
    elsif ($prefix eq 'million/wal_005/') {
        my $after = $asked{'continuation-token'} // $asked{'start-after'} // '';
        my $first = $after =~ m{wal_005/0{7}1([0-9A-F]{8})([0-9A-F]{8})} ? (hex($1) << 8) + hex($2) + 1 : 0;
        my $last = $first + 999 < $MILLION - 1 ? $first + 999 : $MILLION - 1;
        $content = join '', map { object("$prefix" . segment($_) . '.lz4', 4_000_000) } $first .. $last;
        $more = '<NextContinuationToken>' . "$prefix" . segment($last) . '.lz4</NextContinuationToken>' if $last < $MILLION - 1;
    }
    my $truncated = $more ? 'true' : 'false';
    return xml("<ListBucketResult><Name>walg-test</Name><Prefix>$prefix</Prefix><MaxKeys>1000</MaxKeys>"
            . "<IsTruncated>$truncated</IsTruncated>$more$content</ListBucketResult>");
}

sub answer {
    my ($method, $path, $query) = @_;
    my %asked = map { my ($key, $value) = split /=/, $_, 2; $value =~ s/%([0-9A-F]{2})/chr hex $1/egi; ($key => $value) }
        grep { /=/ } split /&/, $query // '';
    return (200, page(%asked)) if $asked{'list-type'};
    return (200, $SENTINEL) if $path =~ /sentinel\.json$/;
    return (404, xml('<Error><Code>NoSuchKey</Code><Message>it is not there</Message></Error>'));
}

# Answers on kept connections, one request after the other, and writes each into `log`.
sub serve {
    my $log = shift;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $PORT, Listen => 16, ReuseAddr => 1)
        or die "port $PORT: $!\n";
    my $pid = fork() // die "fork: $!";
    return $pid if $pid;
    open my $written, '>>', $log or die "$log: $!\n";
    my ($select, %read) = (IO::Select->new($listener));
    while (my @ready = $select->can_read) {
        for my $socket (@ready) {
            if ($socket == $listener) {
                $select->add(scalar $listener->accept);
                next;
            }
            if (!sysread $socket, $read{$socket}, 65_536, length($read{$socket} // '')) {
                $select->remove($socket);
                delete $read{$socket};
                close $socket;
                next;
            }
            while ($read{$socket} =~ s/^(\w+) ([^ ?]+)(?:\?(\S*))? HTTP.*?\r\n\r\n//s) {
                my ($code, $body) = answer($1, $2, $3);
                syswrite $written, "| $1 | $2\n";
                my $length = length $body;
                print $socket "HTTP/1.1 $code OK\r\nContent-Type: application/xml\r\nContent-Length: $length\r\n\r\n$body";
                $socket->flush;
            }
        }
    }
    POSIX::_exit(0);
}

sub million {
    my $log    = '/tmp/million.log';
    my $server = serve($log);
    configure('million', $PORT);
    eval { table("$MILLION WAL objects of a made-up listing", 'million', $log) };
    my $failed = $@;
    kill TERM => $server;
    waitpid $server, 0;
    die $failed if $failed;
}

my %parts = (stored => \&stored, million => \&million);
my @asked = @ARGV ? @ARGV : qw(stored million);
for my $part (@asked) {
    my $measure = $parts{$part} or die "there is no $part; there are: stored, million\n";
    $measure->();
}
