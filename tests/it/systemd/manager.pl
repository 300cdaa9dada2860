# What systemd does for xdb.service and no more: holds the port over restarts, hands it over as descriptor 3, starts the
# daemon again when it ends, and writes down what it is told. Usage: manager.pl PORT DIRECTORY; SIGTERM ends both.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket;

my ($port, $directory) = @ARGV;
# Descriptors above this are closed by exec, and the port is to be handed over.
$^F = 3;
# Whatever is open here already would take the place.
POSIX::close($_) for 3 .. 9;
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
die "the listener is descriptor " . fileno($listener) if fileno($listener) != 3;
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1) or die "setsockopt: $!";
bind($listener, sockaddr_in($port, INADDR_ANY)) or die "bind: $!";
listen($listener, SOMAXCONN) or die "listen: $!";
my $notify = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "$directory/notify") or die "notify: $!";
open(my $told, '>>', "$directory/told") or die "told: $!";
$told->autoflush;

my $child = 0;
sub start {
    defined($child = fork) or die "fork: $!";
    return if $child;
    @ENV{qw(LISTEN_PID LISTEN_FDS NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC)} = ($$, 1, "$directory/notify", $$, 2_000_000);
    exec 'xdb', 'daemon';
}

my $ending = 0;
$SIG{TERM} = sub { $ending = 1; kill 'TERM', $child };
start();
my $select = IO::Select->new($notify);
while (1) {
    if ($select->can_read(0.05)) {
        $notify->recv(my $message, 4096);
        print $told map { "$child $_\n" } split /\n/, $message;
    }
    if (waitpid($child, POSIX::WNOHANG()) > 0) {
        print $told "$child ended\n";
        last if $ending;
        start();
    }
}
