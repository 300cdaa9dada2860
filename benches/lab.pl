# What the measurements share, by `require '/benches/lab.pl'`.
use strict;
use warnings;

# Writes /etc/xdb/xdb.toml for the servers of this container. PORT is that of S3; POSTGRES are more lines of [postgres], and MORE
# more sections.
sub configure {
    my %with = (port => 7000, postgres => '', more => '', @_);
    open my $out, '>', '/etc/xdb/xdb.toml' or die "xdb.toml: $!";
    print $out <<"END";
[postgres]
host = "127.0.0.1"
password = "lab-password"
$with{postgres}
[redis]
url = "redis://127.0.0.1:6379"
password = "lab-password"
[s3]
region = "us-east-1"
endpoint = "http://127.0.0.1:$with{port}"
force_path_style = true
access_key_id = "lab"
secret_access_key = "lab-secret-key"
[archive]
program = "walrus"
repository = "s3://walg-test/main/pg17"
$with{more}
END
    close $out or die "xdb.toml: $!";
    system('chown root:postgres /etc/xdb/xdb.toml && chmod 0640 /etc/xdb/xdb.toml') == 0 or die 'xdb.toml: its owner';
}

1;
