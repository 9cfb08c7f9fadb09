// Sockets as servers use them, line by line; what it prints is compared with what it prints under runc.
// usage: network [PEER4 PEER6 OWN4]: with addresses also over the interface that reaches the peer.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(...) (printf(__VA_ARGS__), fflush(stdout))
static const char *E(long r) { return r < 0 ? strerrorname_np(errno) : "ok"; }
static const char *R(long r) { static char b[4][24]; static int i; i = (i + 1) % 4; if (r < 0) return strerrorname_np(errno); snprintf(b[i], sizeof b[i], "%ld", r); return b[i]; }

union any { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; struct sockaddr_storage ss; };
static socklen_t size(const union any *a) { return a->sa.sa_family == AF_INET ? sizeof a->in : sizeof a->in6; }
static union any at(int family, const char *text, int port) {
    union any a; memset(&a, 0, sizeof a); a.sa.sa_family = family;
    if (family == AF_INET) { a.in.sin_port = htons(port); inet_pton(AF_INET, text, &a.in.sin_addr); }
    else { a.in6.sin6_port = htons(port); inet_pton(AF_INET6, text, &a.in6.sin6_addr); }
    return a;
}
static int port_of(int fd) { union any a; socklen_t l = sizeof a; getsockname(fd, &a.sa, &l); return ntohs(a.in.sin_port); }
static int listener(int family, const char *text, union any *where) {
    int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0); union any a = at(family, text, 0);
    if (bind(s, &a.sa, size(&a)) || listen(s, 16)) { SAY("listener: %s\n", E(-1)); exit(1); }
    *where = at(family, text, port_of(s)); return s;
}
static void pair(int family, const char *text, int v[2]) {
    union any a; int l = listener(family, text, &a); v[0] = socket(family, SOCK_STREAM, 0);
    if (connect(v[0], &a.sa, size(&a))) SAY("connect: %s\n", E(-1));
    v[1] = accept4(l, 0, 0, SOCK_CLOEXEC); close(l);
}
static long all(int fd, char *b, size_t n) { size_t d = 0; while (d < n) { long r = read(fd, b + d, n - d); if (r <= 0) return r < 0 ? r : (long)d; d += r; } return d; }

static void *pour(void *p) { int fd = *(int *)p; char b[5000]; for (int i = 0; i < 400; i++) { memset(b, i, sizeof b); for (size_t d = 0; d < sizeof b;) { long r = write(fd, b + d, sizeof b - d); if (r < 0) return 0; d += r; } } shutdown(fd, SHUT_WR); return 0; }

static void streams(int family, const char *text) {
    int v[2]; char b[70000]; pthread_t t; pair(family, text, v);
    SAY("-- stream %s\n", text);
    pthread_create(&t, 0, pour, &v[0]); unsigned long sum = 0, n = 0; long r; while ((r = read(v[1], b, sizeof b)) > 0) { n += r; for (long i = 0; i < r; i++) sum += (unsigned char)b[i]; }
    pthread_join(t, 0); SAY("%lu bytes, sum %lu, then %s\n", n, sum, R(r));
    // Half closed: the other direction goes on.
    SAY("half %s", R(write(v[1], "back", 4))); SAY(" %s", R(read(v[0], b, 9))); signal(SIGPIPE, SIG_IGN); SAY(" %s", R(write(v[0], "x", 1))); SAY(" %s\n", R(send(v[0], "x", 1, MSG_NOSIGNAL)));
    close(v[1]); SAY("end %s\n", R(read(v[0], b, 9))); close(v[0]);
    pair(family, text, v); write(v[0], "abcdef", 6); SAY("peek %s %.3s", R(recv(v[1], b, 3, MSG_PEEK)), b); SAY(" waitall %s\n", R(recv(v[1], b, 6, MSG_WAITALL)));
    SAY("dontwait %s", R(recv(v[1], b, 3, MSG_DONTWAIT))); SAY(" oob %s", R(send(v[0], "!", 1, MSG_OOB))); usleep(20000); struct pollfd q = {v[1], POLLPRI, 0}; poll(&q, 1, 1000); SAY(" %x", q.revents); SAY(" %s %c\n", R(recv(v[1], b, 3, MSG_OOB)), b[0]);
    struct timeval tv = {0, 50000}; setsockopt(v[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); SAY("timeout %s\n", R(read(v[1], b, 1)));
    struct linger lg = {1, 0}; setsockopt(v[0], SOL_SOCKET, SO_LINGER, &lg, sizeof lg); write(v[1], "unread", 6); close(v[0]); q.events = POLLIN; poll(&q, 1, 2000); int e = 0; socklen_t l = sizeof e;
    getsockopt(v[1], SOL_SOCKET, SO_ERROR, &e, &l); SAY("reset %s", e ? strerrorname_np(e) : "0"); SAY(" %s\n", R(read(v[1], b, 9))); close(v[1]);
    // writev, readv, sendfile.
    pair(family, text, v); struct iovec o[3] = {{"one", 3}, {"", 0}, {"three", 5}}, i[2] = {{b, 4}, {b + 100, 50}}; SAY("writev %s", R(writev(v[0], o, 3))); SAY(" readv %s %.4s %.4s\n", R(readv(v[1], i, 2)), b, b + 100);
    int f = memfd_create("f", 0); for (int k = 0; k < 60000; k++) b[k] = "0123456789"[k % 10]; for (int k = 0; k < 5; k++) write(f, b, 60000); off_t off = 5; size_t sent = 0; fcntl(v[0], F_SETFL, O_NONBLOCK);
    for (unsigned got = 0; got < 299995;) { long s = sendfile(v[0], f, &off, 300000); if (s > 0) sent += s; long g = read(v[1], b, sizeof b); if (g <= 0) break; got += g; }
    SAY("sendfile %zu %ld %s\n", sent, (long)off, R(sendfile(v[0], f, &off, 10))); close(f); close(v[0]); close(v[1]);
}

static void non_blocking(int family, const char *text) {
    SAY("-- non-blocking %s\n", text);
    union any a; int l = listener(family, text, &a), s = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), e = 1; socklen_t n = sizeof e; fcntl(l, F_SETFL, O_NONBLOCK);
    int early = accept(l, 0, 0); SAY("accept %s\n", R(early)); long r = connect(s, &a.sa, size(&a)); SAY("connect %s\n", r < 0 && errno != EINPROGRESS ? E(r) : "under way or done");
    struct pollfd p[2] = {{s, POLLOUT, 0}, {l, POLLIN, 0}}; poll(p, 1, 2000); poll(p + 1, 1, 2000); SAY("poll %x %x\n", p[0].revents, p[1].revents); getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &n); SAY("error %d again %s\n", e, E(connect(s, &a.sa, size(&a))));
    int c = accept4(l, 0, 0, SOCK_NONBLOCK); SAY("flags %x\n", fcntl(c, F_GETFL) & O_NONBLOCK); char b[65536]; memset(b, 1, sizeof b); long total = 0; while ((r = write(s, b, sizeof b)) > 0) total += r; SAY("full %s %d\n", R(r), total > 100000);
    struct pollfd w = {s, POLLOUT, 0}; SAY("poll full %d\n", poll(&w, 1, 0)); while (total > 0 && (r = read(c, b, sizeof b)) != 0) { if (r > 0) total -= r; else { struct pollfd x = {c, POLLIN, 0}; poll(&x, 1, 1000); } } SAY("drained %ld, poll %d\n", total, poll(&w, 1, 1000));
    close(c); close(s); close(l); s = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0); r = connect(s, &a.sa, size(&a)); p[0].fd = s; poll(p, 1, 2000); getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &n); SAY("refused %s %x\n", r == 0 ? "connected" : errno == EINPROGRESS ? strerrorname_np(e) : E(r), p[0].revents & POLLOUT); close(s);
    // epoll, edge-triggered, over many connections.
    l = listener(family, text, &a); int ep = epoll_create1(0), fds[60]; struct epoll_event ev = {EPOLLIN, {.fd = l}}, got[64]; fcntl(l, F_SETFL, O_NONBLOCK); epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev); int echoed = 0, open = 0;
    if (fork() == 0) { for (int i = 0; i < 60; i++) { fds[i] = socket(family, SOCK_STREAM, 0); if (connect(fds[i], &a.sa, size(&a))) _exit(1); write(fds[i], "hello", 5); } for (int i = 0; i < 60; i++) if (all(fds[i], b, 5) != 5) _exit(2); _exit(0); }
    for (int quiet = 0; echoed < 60 && quiet < 50;) { int k = epoll_wait(ep, got, 64, 100); quiet = k ? 0 : quiet + 1; for (int i = 0; i < k; i++) if (got[i].data.fd == l) { int x; while ((x = accept4(l, 0, 0, SOCK_NONBLOCK)) >= 0) { struct epoll_event y = {EPOLLIN | EPOLLET | EPOLLRDHUP, {.fd = x}}; epoll_ctl(ep, EPOLL_CTL_ADD, x, &y); open++; } } else { long g; while ((g = read(got[i].data.fd, b, 5)) > 0) { write(got[i].data.fd, b, g); echoed++; } } }
    int st; wait(&st); SAY("epoll echoed %d of %d, client %d\n", echoed, open, WEXITSTATUS(st)); close(ep); close(l);
}

static void datagrams(int family, const char *text) {
    SAY("-- datagrams %s\n", text);
    int a = socket(family, SOCK_DGRAM, 0), b = socket(family, SOCK_DGRAM, 0), on = 1; union any x = at(family, text, 0), from; char buf[70000]; bind(a, &x.sa, size(&x)); bind(b, &x.sa, size(&x)); union any to = at(family, text, port_of(a)); socklen_t n = sizeof from;
    SAY("sendto %s", R(sendto(b, "datagram", 8, 0, &to.sa, size(&to)))); SAY(" recvfrom %s from own port %d\n", R(recvfrom(a, buf, 4, MSG_TRUNC, &from.sa, &n)), ntohs(from.in.sin_port) == port_of(b));
    SAY("empty %s", R(sendto(b, "", 0, 0, &to.sa, size(&to)))); SAY(" %s\n", R(recv(a, buf, 9, 0))); SAY("large %s", R(sendto(b, buf, 70000, 0, &to.sa, size(&to)))); SAY(" %s", R(sendto(b, buf, 60000, 0, &to.sa, size(&to)))); SAY(" %s\n", R(recv(a, buf, sizeof buf, 0)));
    SAY("not connected %s", R(send(b, "x", 1, 0))); SAY(" connect %s", E(connect(b, &to.sa, size(&to)))); SAY(" %s\n", R(send(b, "x", 1, 0))); recv(a, buf, 9, 0);
    struct mmsghdr m[8]; struct iovec v[8]; memset(m, 0, sizeof m); for (int i = 0; i < 8; i++) { v[i] = (struct iovec){"message" + i % 3, 3 + i % 3}; m[i].msg_hdr.msg_iov = v + i; m[i].msg_hdr.msg_iovlen = 1; } SAY("sendmmsg %s", R(sendmmsg(b, m, 8, 0)));
    char parts[8][16]; for (int i = 0; i < 8; i++) { v[i] = (struct iovec){parts[i], 16}; m[i].msg_len = 0; } struct timespec ts = {1, 0}; SAY(" recvmmsg %s:", R(recvmmsg(a, m, 8, MSG_WAITFORONE, &ts))); for (int i = 0; i < 8; i++) SAY(" %u", m[i].msg_len); SAY("\n");
    // Which address it came to, and when.
    int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, info = family == AF_INET ? IP_PKTINFO : IPV6_RECVPKTINFO; SAY("pktinfo %s", E(setsockopt(a, level, info, &on, sizeof on))); SAY(" timestamp %s", E(setsockopt(a, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on))); send(b, "x", 1, 0);
    char control[256]; struct iovec one = {buf, 9}; struct msghdr h = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}; SAY(" recvmsg %s:", R(recvmsg(a, &h, 0))); for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) SAY(" %d/%d/%zu", c->cmsg_level, c->cmsg_type, c->cmsg_len); SAY("\n");
    // An error comes back: nobody listens.
    close(a); send(b, "x", 1, 0); struct pollfd z = {b, POLLIN, 0}; poll(&z, 1, 2000); SAY("refused %s\n", R(recv(b, buf, 9, MSG_DONTWAIT))); close(b);
}

static void options(int family, const char *text) {
    static const struct { const char *name; int level, option, value; } list[] = {
        {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1}, {"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1}, {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1}, {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 50000}, {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 60000},
        {"SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1}, {"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 3}, {"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 2}, {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1}, {"SO_INCOMING_CPU", SOL_SOCKET, SO_INCOMING_CPU, 0}, {"SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 1}, {"SO_BUSY_POLL", SOL_SOCKET, SO_BUSY_POLL, 0},
        {"SO_RCVBUFFORCE", SOL_SOCKET, SO_RCVBUFFORCE, 1000000}, {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1}, {"TCP_CORK", IPPROTO_TCP, TCP_CORK, 1}, {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 99}, {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 9}, {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 4},
        {"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 1}, {"TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 0}, {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 3000}, {"TCP_FASTOPEN", IPPROTO_TCP, TCP_FASTOPEN, 5}, {"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384}, {"TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, 1000}, {"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 3},
        {"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 10}, {"TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 50000}, {"IP_TOS", IPPROTO_IP, IP_TOS, 16}, {"IP_TTL", IPPROTO_IP, IP_TTL, 33}, {"IP_MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, 2}, {"IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1}, {"IP_FREEBIND", IPPROTO_IP, IP_FREEBIND, 1}, {"IP_RECVERR", IPPROTO_IP, IP_RECVERR, 1},
        {"IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 1}, {"IPV6_UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9}, {"IPV6_TCLASS", IPPROTO_IPV6, IPV6_TCLASS, 4}, {"bogus", SOL_SOCKET, 9999, 1}, {"bogus level", 9999, 1, 1},
    };
    SAY("-- options %s\n", text);
    for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
        int s = socket(family, SOCK_STREAM, 0), v = list[i].value, r; socklen_t l = sizeof v; r = setsockopt(s, list[i].level, list[i].option, &v, sizeof v); SAY("%s set %s", list[i].name, E(r)); v = -1; r = getsockopt(s, list[i].level, list[i].option, &v, &l); SAY(" get %s %d/%u", E(r), v, l);
        SAY(" short %s\n", E(setsockopt(s, list[i].level, list[i].option, &v, 0))); close(s);
    }
    int v[2], x = 0; pair(family, text, v); char name[20] = ""; socklen_t l = sizeof name; SAY("congestion %s", E(getsockopt(v[0], IPPROTO_TCP, TCP_CONGESTION, name, &l))); SAY(" %s", E(setsockopt(v[0], IPPROTO_TCP, TCP_CONGESTION, "reno", 4))); l = sizeof name; getsockopt(v[0], IPPROTO_TCP, TCP_CONGESTION, name, &l); SAY(" %s\n", name);
    struct tcp_info ti; l = sizeof ti; memset(&ti, 0, sizeof ti); write(v[0], "12345", 5); all(v[1], name, 5); SAY("TCP_INFO %s", E(getsockopt(v[0], IPPROTO_TCP, TCP_INFO, &ti, &l))); SAY(" state %d mss %d rtt %d acked %d\n", ti.tcpi_state, ti.tcpi_snd_mss > 500, ti.tcpi_rtt > 0, ti.tcpi_rcv_mss > 0);
    write(v[0], "abc", 3); usleep(20000); SAY("FIONREAD %s", E(ioctl(v[1], FIONREAD, &x))); SAY(" %d", x); l = sizeof x; getsockopt(v[0], SOL_SOCKET, SO_TYPE, &x, &l); SAY(" type %d", x); getsockopt(v[0], SOL_SOCKET, SO_DOMAIN, &x, &l); SAY(" domain %d", x); getsockopt(v[0], SOL_SOCKET, SO_PROTOCOL, &x, &l); SAY(" protocol %d", x); getsockopt(v[0], SOL_SOCKET, SO_ACCEPTCONN, &x, &l); SAY(" accepts %d\n", x);
    struct timeval tv = {3, 500000}; l = sizeof tv; setsockopt(v[0], SOL_SOCKET, SO_SNDTIMEO, &tv, l); tv.tv_sec = 0; getsockopt(v[0], SOL_SOCKET, SO_SNDTIMEO, &tv, &l); SAY("SO_SNDTIMEO %ld.%06ld\n", (long)tv.tv_sec, (long)tv.tv_usec); close(v[0]); close(v[1]);
}

static void sharing(int family, const char *text) {
    SAY("-- sharing %s\n", text);
    int a = socket(family, SOCK_STREAM, 0), b = socket(family, SOCK_STREAM, 0), c = socket(family, SOCK_STREAM, 0), on = 1; setsockopt(a, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); setsockopt(b, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    union any x = at(family, text, 0); bind(a, &x.sa, size(&x)); x = at(family, text, port_of(a)); SAY("reuse port %s", E(bind(b, &x.sa, size(&x)))); SAY(" without %s", E(bind(c, &x.sa, size(&x)))); listen(a, 99); listen(b, 99); fcntl(a, F_SETFL, O_NONBLOCK); fcntl(b, F_SETFL, O_NONBLOCK);
    int got = 0; for (int i = 0; i < 40; i++) { int s = socket(family, SOCK_STREAM, 0); connect(s, &x.sa, size(&x)); close(s); } usleep(50000); int na = 0, nb = 0, s; while ((s = accept(a, 0, 0)) >= 0) { na++; close(s); } while ((s = accept(b, 0, 0)) >= 0) { nb++; close(s); } got = na + nb; SAY(" accepted %d, both %d\n", got, na > 0 && nb > 0); close(a); close(b); close(c);
    s = socket(family, SOCK_STREAM, 0); x = at(family, family == AF_INET ? "203.0.113.7" : "2001:db8::7", 0); SAY("foreign bind %s", E(bind(s, &x.sa, size(&x)))); close(s); s = socket(family, SOCK_STREAM, 0); x = at(family, text, 80); SAY(" port 80 %s", E(bind(s, &x.sa, size(&x)))); SAY(" twice %s", E(bind(s, &x.sa, size(&x)))); SAY(" short %s\n", E(bind(s, &x.sa, 3))); close(s);
    if (fork() == 0) { if (setgid(65534) || setuid(65534)) _exit(1); s = socket(family, SOCK_STREAM, 0); x = at(family, text, 81); SAY("as nobody: port 81 %s", E(bind(s, &x.sa, size(&x)))); SAY(" raw %s\n", R(socket(family, SOCK_RAW, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6))); _exit(0); } wait(0);
}

// What was closed is closed for whatever comes next.
static void closing(int family, const char *text) {
    union any a; int s = listener(family, text, &a), failed = 0, reached = 0; close(s);
    for (int i = 0; i < 100; i++) { s = socket(family, SOCK_STREAM, 0); if (bind(s, &a.sa, size(&a)) || listen(s, 1)) failed++; close(s); s = socket(family, SOCK_STREAM, 0); if (connect(s, &a.sa, size(&a)) == 0 || errno != ECONNREFUSED) reached++; close(s); }
    SAY("-- closing %s\nbind failed %d, connected to nobody %d\n", text, failed, reached);
}

static unsigned short sum(void *p, int n) { unsigned s = 0; for (unsigned short *w = p; n > 1; n -= 2) s += *w++; s = (s >> 16) + (s & 0xffff); return ~(s + (s >> 16)); }
static void ping(const char *text) {
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); SAY("raw %s %s", text, s < 0 ? E(-1) : "ok"); if (s < 0) { SAY("\n"); return; }
    struct icmphdr h = {.type = ICMP_ECHO, .un.echo = {getpid(), 1}}; h.checksum = sum(&h, sizeof h); union any a = at(AF_INET, text, 0); SAY(" sent %s", R(sendto(s, &h, sizeof h, 0, &a.sa, size(&a)))); char b[200]; struct pollfd p = {s, POLLIN, 0};
    while (poll(&p, 1, 1000) > 0) { long n = recv(s, b, sizeof b, 0); struct iphdr *ip = (void *)b; struct icmphdr *r = (void *)(b + ip->ihl * 4); if (r->type == ICMP_ECHOREPLY && r->un.echo.id == h.un.echo.id) { SAY(" reply of %ld\n", n); close(s); return; } } SAY(" no reply\n"); close(s);
}

static void multicast(const char *own) {
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0), on = 1; union any x = at(AF_INET, "0.0.0.0", 0); bind(a, &x.sa, size(&x)); struct ip_mreq m = {.imr_multiaddr.s_addr = inet_addr("239.1.2.3"), .imr_interface.s_addr = inet_addr(own)}; char buf[20];
    SAY("multicast join %s", E(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m))); SAY(" twice %s", E(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m))); SAY(" if %s", E(setsockopt(b, IPPROTO_IP, IP_MULTICAST_IF, &m.imr_interface, sizeof m.imr_interface))); SAY(" loop %s", E(setsockopt(b, IPPROTO_IP, IP_MULTICAST_LOOP, &on, sizeof on)));
    x = at(AF_INET, "239.1.2.3", port_of(a)); SAY(" sent %s", R(sendto(b, "group", 5, 0, &x.sa, size(&x)))); struct pollfd p = {a, POLLIN, 0}; SAY(" got %s", poll(&p, 1, 1000) > 0 ? R(recv(a, buf, 20, 0)) : "nothing"); SAY(" leave %s\n", E(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m))); close(a); close(b);
}

static void names(void) {
    struct addrinfo h = {.ai_socktype = SOCK_STREAM}, *r, *p; SAY("-- names\ngetaddrinfo %d", getaddrinfo("localhost", "80", &h, &r)); char b[64]; for (p = r; p; p = p->ai_next) { getnameinfo(p->ai_addr, p->ai_addrlen, b, sizeof b, 0, 0, NI_NUMERICHOST); SAY(" %s", b); } h.ai_flags = AI_NUMERICHOST; SAY(" numeric %d", getaddrinfo("10.0.0.1", 0, &h, &r)); SAY(" bad %d\n", getaddrinfo("10.0.0.300", 0, &h, &r));
    struct ifaddrs *i, *k; getifaddrs(&i); for (k = i; k; k = k->ifa_next) if (k->ifa_addr && (k->ifa_addr->sa_family == AF_INET || k->ifa_addr->sa_family == AF_INET6) && !(k->ifa_addr->sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)k->ifa_addr)->sin6_addr))) { getnameinfo(k->ifa_addr, k->ifa_addr->sa_family == AF_INET ? 16 : 28, b, sizeof b, 0, 0, NI_NUMERICHOST); SAY("%s %s %x\n", k->ifa_name, b, k->ifa_flags & (IFF_UP | IFF_LOOPBACK)); }
    struct if_nameindex *n = if_nameindex(); for (int j = 0; n && n[j].if_index; j++) SAY("interface %s", n[j].if_name); SAY("\n");
    int families[] = {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_BLUETOOTH, AF_APPLETALK, 99, -1}; for (unsigned j = 0; j < sizeof families / sizeof *families; j++) for (int t = 1; t < 4; t++) { int s = socket(families[j], t, families[j] == AF_INET && t == 3 ? 1 : 0); SAY("socket %d %d %s\n", families[j], t, s < 0 ? E(-1) : "ok"); if (s >= 0) close(s); }
}

int main(int c, char **v) {
    names(); streams(AF_INET, "127.0.0.1"); streams(AF_INET6, "::1"); non_blocking(AF_INET, "127.0.0.1"); non_blocking(AF_INET6, "::1"); datagrams(AF_INET, "127.0.0.1"); datagrams(AF_INET6, "::1"); options(AF_INET, "127.0.0.1"); options(AF_INET6, "::1"); sharing(AF_INET, "127.0.0.1"); sharing(AF_INET6, "::1"); closing(AF_INET, "127.0.0.1"); closing(AF_INET6, "::1"); ping("127.0.0.1");
    if (c > 3) {
        ping(v[1]); multicast(v[3]); streams(AF_INET, v[3]); datagrams(AF_INET, v[3]);
        for (int f = 1; f <= 2; f++) { int family = f == 1 ? AF_INET : AF_INET6, s = socket(family, SOCK_STREAM, 0); union any a = at(family, v[f], 7777); char b[100]; SAY("peer %s %s", v[f], E(connect(s, &a.sa, size(&a)))); SAY(" sent %s", R(write(s, "across", 6))); shutdown(s, SHUT_WR); SAY(" got %s\n", R(all(s, b, 100))); close(s);
            s = socket(family, SOCK_DGRAM, 0); connect(s, &a.sa, size(&a)); SAY("datagram %s", R(send(s, "across", 6, 0))); struct pollfd p = {s, POLLIN, 0}; SAY(" got %s\n", poll(&p, 1, 2000) > 0 ? R(recv(s, b, 100, 0)) : "nothing"); close(s);
            s = socket(family, SOCK_STREAM, 0); a = at(family, v[f], 7778); SAY("peer's closed port %s\n", E(connect(s, &a.sa, size(&a)))); close(s); }
    }
    return 0;
}
