# Stands between a client and the lab's real S3, and spoils one thing: s3_between.pl PORT FAULT.
# What it changes of a request it signs again, with the lab's own keys; S3 itself is never replaced.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex hmac_sha256 hmac_sha256_hex);
use IO::Socket::INET;

my ($port, $fault) = @ARGV;
my ($s3, $key, $secret) = ('127.0.0.1:7070', 'lab', 'lab-secret-key');
$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 64, ReuseAddr => 1) or die "listen: $!";
while (my $client = $listener->accept) {
    next if fork;
    close $listener;
    serve($client);
    exit;
}

sub read_message {
    my ($socket) = @_;
    my ($head, $body) = ('', '');
    while ($head !~ /\r\n\r\n$/) {
        defined(my $line = <$socket>) or return;
        $head .= $line;
    }
    my ($length) = $head =~ /^content-length: *(\d+)/mi;
    while (($length // 0) > length $body) {
        read($socket, $body, $length - length $body, length $body) or return;
    }
    return ($head, $body);
}

sub serve {
    my ($client) = @_;
    # Away since the part came.
    return if $fault =~ /^cut-/ && -e '/tmp/s3_cut';
    my ($head, $body) = read_message($client) or return;
    my ($method, $target, %header) = ($head =~ /^(\S+) (\S+)/);
    $header{lc $1} = $2 while $head =~ /^([^\s:]+): *(.*?)\r$/mg;
    my ($path, $query) = split /\?/, $target, 2;
    my %query = map { my ($n, $v) = split /=/, $_, 2; $n => $v // '' } split /&/, $query // '';
    my $lists = $method eq 'GET' && exists $query{'list-type'};

    delete $header{'if-none-match'} if $fault eq 'ignores-if-none-match';
    delete $header{'if-match'} if $fault eq 'ignores-if-match';
    delete $header{'if-match'} if $fault eq 'ignores-if-match-on-delete' && $method eq 'DELETE';
    my $conditional = exists $header{'if-none-match'} || exists $header{'if-match'};
    return refuse($client, '501 Not Implemented', 'NotImplemented') if $fault eq 'knows-no-conditions' && $conditional;
    return refuse($client, '412 Precondition Failed', 'PreconditionFailed')
        if $fault eq 'creates-no-lock' && $method eq 'PUT' && $path =~ m{/locks/} && exists $header{'if-none-match'};
    my ($kind, $part, $file) = $fault =~ /^(cut-at|refuse)-part-(\d+)-of-(.*)/;
    if (defined $kind && $path =~ m{/\Q$file\E$} && ($query{partNumber} // '') eq $part) {
        return refuse($client, '403 Forbidden', 'AccessDenied') if $kind eq 'refuse';
        open my $mark, '>', '/tmp/s3_cut';
        return;
    }
    # As a bucket policy does: `denies-all-but-METHOD`, or with a key `denies-all-but-METHOD,KEY`.
    if ($fault =~ /^denies-all-but-(.*)/) {
        my $writes = $method eq 'PUT' && !exists $query{partNumber} || $method eq 'POST' && exists $query{uploads};
        my ($asked, $with) = @header{'x-amz-server-side-encryption', 'x-amz-server-side-encryption-aws-kms-key-id'};
        $asked = join ',', $asked // '', $with // ();
        return refuse($client, '403 Forbidden', 'AccessDenied') if $writes && $asked ne $1;
    }
    if ($fault eq 'storm') {
        mkdir '/tmp/s3_storm';
        my $mark = '/tmp/s3_storm/' . sha256_hex("$method $target");
        return refuse($client, '503 Slow Down', 'SlowDown') if !-e $mark && open my $new, '>', $mark;
    }
    my $asked = $query{'continuation-token'};
    if ($lists && $fault =~ /^list-/) {
        $query{'max-keys'} = 2;
        delete $query{'continuation-token'} if $fault eq 'list-repeats';
    }
    sign($method, $path, \%query, \%header);

    my $server = IO::Socket::INET->new(PeerAddr => $s3) or return;
    $target = join '?', $path, %query ? join '&', map { "$_=$query{$_}" } sort keys %query : ();
    $header{connection} = 'close';
    print $server "$method $target HTTP/1.1\r\n", (map { "$_: $header{$_}\r\n" } sort keys %header), "\r\n", $body;
    my ($status, $answer);
    if ($method eq 'HEAD') {
        local $/ = undef;
        $status = <$server>, $answer = '';
    } else {
        ($status, $answer) = read_message($server) or return;
    }
    my $token = qr{<NextContinuationToken>.*?</NextContinuationToken>};
    if ($lists && $answer =~ /<ListBucketResult/) {
        $answer =~ s/$token// if $fault eq 'list-loses-its-token';
        $answer =~ s{$token}{<NextContinuationToken>$asked</NextContinuationToken>}
            if $fault eq 'list-leads-to-itself' && defined $asked;
        # The count stays; the last key goes.
        $answer =~ s{(.*)<Contents>.*?</Contents>}{$1}s if $fault eq 'list-lacks-a-key';
        $answer =~ s{<IsTruncated>.*?</IsTruncated>}{}, $answer =~ s/$token// if $fault eq 'list-does-not-end';
    }
    if ($fault eq 'changes-etags' && $method eq 'GET' && !$lists) {
        my $tag = sprintf '"%032x"', int rand 2**31;
        $status =~ s/^(etag: *).*?\r$/$1$tag\r/mi;
    }
    my $length = length $answer;
    $status =~ s/^content-length:.*\r\n//mi if $method ne 'HEAD';
    $status =~ s/^connection:.*\r\n//mi;
    my $added = "connection: close\r\n" . ($method eq 'HEAD' ? '' : "content-length: $length\r\n");
    $status =~ s/\r\n\r\n$/\r\n$added\r\n/;
    print $client $status, $answer;
}

sub refuse {
    my ($client, $status, $code) = @_;
    my $answer = "<?xml version=\"1.0\"?><Error><Code>$code</Code><Message>refused by the test</Message></Error>";
    my $length = length $answer;
    print $client "HTTP/1.1 $status\r\ncontent-type: application/xml\r\ncontent-length: $length\r\nconnection: close\r\n\r\n$answer";
}

# Signature version 4, over the headers that were signed before and are still there.
sub sign {
    my ($method, $path, $query, $header) = @_;
    return unless ($header->{authorization} // '') =~ m{Credential=[^/]+/(\d+)/([^/]+)/s3/aws4_request, *SignedHeaders=([^,]+)};
    my ($day, $region, $names) = ($1, $2, $3);
    my @names = grep { exists $header->{$_} } split /;/, $names;
    $names = join ';', @names;
    my $canonical = join "\n", $method, $path, (join '&', map { "$_=$query->{$_}" } sort keys %$query),
        (map { "$_:$header->{$_}" } @names), '', $names, $header->{'x-amz-content-sha256'};
    my $scope = "$day/$region/s3/aws4_request";
    my $text = join "\n", 'AWS4-HMAC-SHA256', $header->{'x-amz-date'}, $scope, sha256_hex($canonical);
    my $signing = "AWS4$secret";
    $signing = hmac_sha256($_, $signing) for $day, $region, 's3', 'aws4_request';
    my $signature = hmac_sha256_hex($text, $signing);
    $header->{authorization} = "AWS4-HMAC-SHA256 Credential=$key/$scope, SignedHeaders=$names, Signature=$signature";
}
