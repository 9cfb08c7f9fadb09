# Real work of perl: sockets, processes, pipes, signals, files, locks, regular expressions, shared memory.
use strict; use warnings;
use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select; use IPC::Open3; use POSIX qw(:sys_wait_h mkfifo setsid); use Fcntl qw(:flock SEEK_SET);
use File::Temp qw(tempdir); use File::Find; use Digest::SHA qw(sha256_hex); use Storable qw(freeze thaw); use Time::HiRes qw(time sleep alarm);
use IPC::SysV qw(IPC_PRIVATE IPC_RMID IPC_CREAT S_IRUSR S_IWUSR); use Socket;
$| = 1;

# A server that forks per connection, with a SIGCHLD handler that reaps.
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20, ReuseAddr => 1) or die "listen: $!";
my $server = fork // die;
if (!$server) {
    my $reaped = 0;
    $SIG{CHLD} = sub { $reaped++ while waitpid(-1, WNOHANG) > 0 };
    my $served = 0;
    while ($served < 20) {
        my $c = $listener->accept or next;
        $served++;
        next if fork;
        while (my $l = <$c>) { print $c scalar reverse(substr($l, 0, -1)), "\n" }
        POSIX::_exit(0);
    }
    sleep 0.05 while $reaped < 20;
    POSIX::_exit($reaped);
}
my $good = 0;
for my $i (1 .. 20) {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) or die "connect: $!";
    for my $j (1 .. 20) { print $s "line $i $j\n"; my $a = <$s>; $good++ if $a eq reverse("line $i $j") . "\n" }
    close $s;
}
waitpid $server, 0;
print "server $good ", $? >> 8, "\n";

my $pid = open3(my $in, my $out, undef, 'sh', '-c', 'cat; echo done; exit 7');
print $in "x" x 50000, "\n"; close $in;
my $text = do { local $/; <$out> };
waitpid $pid, 0;
print "open3 ", length $text, " ", $? >> 8, "\n";

my $dir = tempdir(CLEANUP => 1);
for my $i (1 .. 50) { open my $f, '>', "$dir/f$i" or die; print $f "y" x $i; close $f }
my $total = 0;
find(sub { $total += -s if -f }, $dir);
print "files $total ", scalar(grep { (stat)[7] > 25 } glob "$dir/*"), "\n";

# Ten processes count in one file under a lock.
open my $count, '+>', "$dir/count" or die; print $count 0; close $count;
my @kids = map {
    my $k = fork // die;
    if (!$k) {
        for (1 .. 50) {
            open my $f, '+<', "$dir/count" or die; flock $f, LOCK_EX or die; my $n = <$f>; seek $f, 0, SEEK_SET; print $f $n + 1; close $f;
        }
        POSIX::_exit(0);
    }
    $k;
} 1 .. 10;
waitpid $_, 0 for @kids;
open $count, '<', "$dir/count"; print "locked ", scalar <$count>, "\n";

my $hits = 0;
$SIG{ALRM} = sub { $hits++; alarm 0.01 if $hits < 10 };
alarm 0.01; sleep 0.05 while $hits < 10;
print "alarms $hits\n";
local $SIG{USR1} = sub { die "usr1\n" };
eval { kill USR1 => $$; sleep 5; };
print "died $@";

mkfifo("$dir/fifo", 0600) or die;
if (!fork) { open my $w, '>', "$dir/fifo"; print $w "through the fifo\n"; close $w; POSIX::_exit(0) }
open my $r, '<', "$dir/fifo"; print scalar <$r>; close $r; wait;

my $shm = shmget(IPC_PRIVATE, 4096, S_IRUSR | S_IWUSR | IPC_CREAT) // die "shmget: $!";
if (!fork) { shmwrite($shm, "shared", 0, 6); POSIX::_exit(0) }
wait; shmread($shm, my $got, 0, 6); shmctl($shm, IPC_RMID, 0);
print "$got\n";

socketpair(my $one, my $two, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die;
if (!fork) { close $one; my $s = IO::Select->new($two); while ($s->can_read(5)) { sysread($two, my $buf, 1000) or last; syswrite $two, uc $buf } POSIX::_exit(0) }
close $two; syswrite $one, "select"; sysread $one, my $up, 100; close $one; wait;
print "$up\n";

my %h = map { $_ => { sq => $_ ** 2 } } 1 .. 1000;
my $copy = thaw(freeze(\%h));
print sha256_hex(join ',', map { "$_=$copy->{$_}{sq}" } sort { $a <=> $b } keys %$copy), "\n";
my $words = 0; $words++ while ("the quick brown fox " x 5000) =~ /\b(\w)(\w+)\b/g;
print "words $words\n";
exit 4;
