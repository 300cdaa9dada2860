# A web server for the lab: receiver.pl PORT. It takes every request and writes it to /tmp/received as "METHOD PATH BODY".
use strict;
use warnings;
use IO::Socket::INET;

my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 16, ReuseAddr => 1) or die "listen: $!";
while (my $client = $listener->accept) {
    my ($head, $body) = ('', '');
    while (defined(my $line = <$client>)) {
        $head .= $line;
        last if $line eq "\r\n";
    }
    my ($length) = $head =~ /^content-length: *(\d+)/mi;
    read $client, $body, $length if $length;
    my ($what) = $head =~ /^(\S+ \S+)/;
    next unless $what;
    open my $received, '>>', '/tmp/received' or die "open: $!";
    print $received "$what $body\n";
    close $received;
    print $client "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $client;
}
