#!/usr/bin/perl
# Fills a directory with tens of thousands of small entries, the same ones at every run: files of
# many sizes, modes and owners, symlinks, hard links, long names, empty directories.
#
#     small-files.pl DIR
use strict;
use warnings;

my ($root) = @ARGV;
defined $root or die "usage: small-files.pl DIR\n";

my $SHARDS          = 64;
my $DIRS_PER_SHARD  = 32;
my $FILES_PER_DIR   = 21;
my @MODES           = (0644, 0644, 0644, 0600, 0755, 0444, 0640, 0400);
my @OWNERS          = ([0, 0], [0, 0], [1000, 1000], [33, 33], [65534, 65534], [10000, 20000]);
my $FIRST_SECOND    = 1_600_000_000;

# A linear congruential generator: perl's own rand differs between builds.
my $state = 20261121;
sub random {
    my ($below) = @_;
    $state = ($state * 1103515245 + 12345) & 0x7fffffff;
    return ($state >> 8) % $below;
}

# Mostly tiny, some of a few blocks, a few of tens of kilobytes: what package trees look like.
sub size {
    my $class = random(100);
    return 0 if $class < 3;
    return 1 + random(512) if $class < 60;
    return 1 + random(4096) if $class < 95;
    return 1 + random(32768);
}

sub content {
    my ($name, $length) = @_;
    my $line = "$name " . random(1 << 22) . "\n";
    return substr($line x (1 + int($length / length $line)), 0, $length);
}

# Times of directories are set last, from the inside out: filling one changes its time.
my @directories;
sub directory {
    my ($path, $mode) = @_;
    mkdir $path or die "mkdir $path: $!\n";
    push @directories, [$path, $mode, $FIRST_SECOND + random(100_000_000)];
}

sub file {
    my ($path) = @_;
    open my $handle, '>:raw', $path or die "create $path: $!\n";
    print $handle content($path =~ s{.*/}{}r, size()) or die "write $path: $!\n";
    close $handle or die "close $path: $!\n";
    my $owner = $OWNERS[random(scalar @OWNERS)];
    chown @$owner, $path or die "chown $path: $!\n";
    chmod $MODES[random(scalar @MODES)], $path or die "chmod $path: $!\n";
    my $time = $FIRST_SECOND + random(100_000_000);
    utime $time, $time, $path or die "utime $path: $!\n";
}

umask 0;
directory($root, 0755);
directory("$root/data", 0755);
for my $shard (0 .. $SHARDS - 1) {
    my $shard_path = sprintf '%s/data/shard%02d', $root, $shard;
    directory($shard_path, 0755);
    for my $number (0 .. $DIRS_PER_SHARD - 1) {
        my $path = sprintf '%s/dir%02d', $shard_path, $number;
        directory($path, random(8) ? 0755 : 02775);
        file(sprintf '%s/file%02d.txt', $path, $_) for 0 .. $FILES_PER_DIR - 1;
        symlink '../dir00/file00.txt', "$path/link" or die "symlink: $!\n";
        symlink 'nowhere/' . 'x' x (1 + random(150)), "$path/dangling" or die "symlink: $!\n";
        link "$path/file00.txt", "$path/hard" or die "link: $!\n";
        # One hard link in four crosses directories.
        link "$path/file01.txt", "$shard_path/hard$number" or die "link: $!\n" if $number % 4 == 0;
    }
    directory("$shard_path/empty", 0711);
    # Beyond the 100 bytes of the classic header.
    my $deep = $shard_path;
    for my $level (1 .. 5) {
        $deep .= '/' . ('level' x 8) . $level;
        directory($deep, 0755);
    }
    file("$deep/" . 'n' x 120);
}
directory("$root/replaced", 0755);
for my $number (0 .. 31) {
    directory("$root/replaced/dir$number", 0755);
    file("$root/replaced/dir$number/file$_") for 0 .. 15;
}

for my $directory (reverse @directories) {
    my ($path, $mode, $time) = @$directory;
    chmod $mode, $path or die "chmod $path: $!\n";
    utime $time, $time, $path or die "utime $path: $!\n";
}
