#!/usr/bin/perl
# Prints how the source is built: handles opened, configuration passed on, import circles, long functions and files.
# `./dev numbers` runs it; `-v` names what is counted.
use strict;
use warnings;
use File::Find;

my $verbose = grep { $_ eq '-v' } @ARGV;
my $root = 'src';
my (%code, %module, %file_of, %is_test);

# A module that is declared for tests only is a test, and so is what stands below it.
sub note_tests {
    my ($file, $text) = @_;
    my $folder = $file =~ s{(?:/mod|/lib|/main)?\.rs$}{}r;
    my $beside = $file =~ s{/[^/]+$}{}r;
    while ($text =~ /\#\[cfg\(test\)\]\s*(?:\#\[path = "([^"]+)"\]\s*)?(?:pub(?:\([^)]*\))? )?mod (\w+);/g) {
        $is_test{defined $1 ? "$beside/$1" : "$folder/$2.rs"} = 1;
    }
}

find({no_chdir => 1, wanted => sub {
    return unless /\.rs$/;
    open my $in, '<', $_ or die "$_: $!\n";
    local $/;
    my $text = <$in>;
    note_tests($_, $text);
    # What is compiled for tests only is a test.
    $text =~ s/^\#\[cfg\(test\)\]\n(?:\#\[[^\n]*\n)*mod \w+ \{.*?^\}\n//msg;
    my $module = substr $_, length("$root/");
    $module =~ s{(?:/mod)?\.rs$}{};
    $module =~ s{/}{::}g;
    $module = '' if $module eq 'lib';
    ($code{$_}, $module{$_}) = ($text, $module);
}}, $root);
# What a test declares is a test, too.
for my $test (grep { $is_test{$_} } sort keys %code) { note_tests($test, $code{$test} =~ s/^((?:\#\[path[^\n]*\n)?mod \w+;)/#[cfg(test)]\n$1/mgr) }
delete @code{grep { $is_test{$_} } keys %code};
$file_of{$module{$_}} = $_ for keys %code;

my @files = sort keys %code;
sub told { my ($name, @found) = @_; printf "%-62s %5d\n", $name, scalar @found; if ($verbose) { print "    $_\n" for @found } }

# --- circles ---------------------------------------------------------------------------------------

# The leaves of a `use` tree, each as a path.
sub leaves {
    my ($tree, $before) = @_;
    $tree =~ s/^\s+|\s+$//g;
    if ($tree =~ /^((?:\w+::)*)\{(.*)\}$/s) {
        my ($path, $inner, $depth, $part, @parts) = ($1, $2, 0, '');
        for my $c (split //, $inner) {
            $depth++ if $c eq '{';
            $depth-- if $c eq '}';
            if ($c eq ',' && !$depth) { push @parts, $part; $part = ''; next }
            $part .= $c;
        }
        return map { leaves($_, "$before$path") } grep { /\S/ } @parts, $part;
    }
    $tree =~ s/\s+as\s+\w+$//;
    return "$before$tree";
}

# The absolute path of `path` as `module` writes it; undef for another crate's.
sub absolute {
    my ($path, $module) = @_;
    return $path =~ s/^crate:://r if $path =~ /^crate::/;
    my @at = split /::/, $module;
    return join '::', @at, $path =~ s/^self:://r if $path =~ /^self::/;
    return unless $path =~ /^super::/;
    while ($path =~ s/^super:://) { pop @at }
    return join '::', @at, $path;
}

my %reexport;
for my $file (@files) {
    my $module = $module{$file};
    while ($code{$file} =~ /^[ \t]*pub(?:\([^)]*\))? use ([^;]+);/mg) {
        for my $leaf (leaves($1, '')) {
            my $path = $leaf =~ /^(?:crate|super|self)::/ ? absolute($leaf, $module) : join '::', grep { length } $module, $leaf;
            my ($name) = $path =~ /(\w+)$/;
            $reexport{join '::', grep { length } $module, $name} = $path if defined $name;
        }
    }
}

# The file in which `path` is defined; nothing where it is none of ours.
sub defined_in {
    my ($path, $depth) = (shift, shift // 0);
    return if $depth > 8;
    for (1 .. 8) { last unless exists $reexport{$path} && $reexport{$path} ne $path; $path = $reexport{$path} }
    my @parts = split /::/, $path;
    while (@parts) {
        my $module = join '::', @parts;
        return defined_in($reexport{$module} . substr($path, length $module), $depth + 1) if exists $reexport{$module} && $module ne $path && $reexport{$module} ne $module && !exists $file_of{$module};
        return $file_of{$module} if exists $file_of{$module};
        pop @parts;
    }
    return;
}

my %uses;
for my $file (@files) {
    my ($module, $text) = ($module{$file}, $code{$file});
    my @paths;
    while ($text =~ /^[ \t]*(?:pub(?:\([^)]*\))? )?use ((?:crate|super|self)::[^;]+);/mg) {
        # What a room hands on it does not use.
        push @paths, leaves($1, '') unless $& =~ /\bpub\b/;
    }
    my $body = $text =~ s/^[ \t]*(?:pub(?:\([^)]*\))? )?use [^;]+;//mgr;
    $body =~ s{//[^\n]*}{}g;
    push @paths, $1 while $body =~ /\b((?:crate|super)::(?:\w+::)*\w+)/g;
    for my $path (@paths) {
        my $absolute = absolute($path =~ s/::self$//r, $module) // next;
        my $to = defined_in($absolute) // next;
        $uses{$file}{$to} = 1 if $to ne $file;
    }
}

my (%index, %low, %on, @stack, @circles);
my $next = 0;
sub visit {
    my $file = shift;
    ($index{$file}, $low{$file}) = ($next, $next);
    $next++;
    push @stack, $file;
    $on{$file} = 1;
    for my $to (sort keys %{$uses{$file} // {}}) {
        if (!exists $index{$to}) {
            visit($to);
            $low{$file} = $low{$to} if $low{$to} < $low{$file};
        }
        elsif ($on{$to} && $index{$to} < $low{$file}) { $low{$file} = $index{$to} }
    }
    return if $low{$file} != $index{$file};
    my @circle;
    while (defined(my $member = pop @stack)) {
        delete $on{$member};
        push @circle, $member;
        last if $member eq $file;
    }
    push @circles, join ' ', sort @circle if @circle > 1;
}
no warnings 'recursion';
exists $index{$_} or visit($_) for @files;

# --- counts ----------------------------------------------------------------------------------------

sub lines_with {
    my ($what, $where) = @_;
    my @found;
    for my $file (grep { m/$where/ } @files) {
        my $number = 0;
        for my $line (split /\n/, $code{$file}) {
            $number++;
            push @found, "$file:$number" if $line !~ m{^\s*//} && $line =~ $what;
        }
    }
    return @found;
}

my $config = qr/: &(?:'\w+ )?(?:crate::config::)?Config\b/;
my $above = qr{^src/(?:cli|daemon|runner|jobs)/};
my @long_functions;
for my $file (@files) {
    my ($number, $begin, $name, $indent) = (0);
    for my $line (split /\n/, $code{$file}) {
        $number++;
        ($begin, $name, $indent) = ($number, $2, $1) if $line =~ /^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?fn (\w+)/ && !defined $begin;
        next unless defined $begin && ($line eq "$indent}" || $line =~ /^\Q$indent\E\S.*[;}]$/ && $number == $begin);
        push @long_functions, "$file:$begin $name " . ($number - $begin + 1) if $number - $begin + 1 > 70;
        undef $begin;
    }
}
my @long_files = map { my $lines = () = $code{$_} =~ /\n/g; $lines > 400 ? "$_ $lines" : () } @files;
my $lines = 0;
$lines += () = $code{$_} =~ /\n/g for @files;

# Behind the handle one call makes the client; whatever makes a handle or a client of its own is counted.
my $opens = qr/\b(?:Bucket|Shared|Repository|Dumps)::open\(|\bRepositoryHandle::new\(/;
told('call sites that make an S3 client', lines_with($opens, qr{^src/(?!storage|repository/(?:handle|shared/mod)\.rs)}));
told('&Config parameters', lines_with($config, qr{^src/(?!config)}));
told('&Config parameters below jobs', grep { !m/$above/ } lines_with($config, qr{^src/(?!config)}));
told('import circles', @circles);
told('serde_json::Value in signatures and fields', grep { 1 } lines_with(qr/(?:^\s*(?:pub(?:\([^)]*\))? )?\w+: |-> |[(,] ?\w+: &?)(?:Option<|Vec<)?(?:serde_json::)?Value\b(?!>?\s*\{)/, qr{^src/(?!checks/values|config)}));
told('functions over 70 lines', @long_functions);
told('files over 400 lines', @long_files);
printf "%-62s %5d\n", 'lines outside tests', $lines;
