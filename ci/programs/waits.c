// Waiting for what is outside of the guest kernel: epoll, poll and select on a pipe from the host and on sockets.
// Prints lines that every kernel must print alike. Its stdin is a pipe on which "one", "two" and "three" come, half a second apart.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int ep;

static const char *names(uint32_t e) {
    static char text[64];
    text[0] = 0;
    if (e & EPOLLIN) strcat(text, " IN");
    if (e & EPOLLOUT) strcat(text, " OUT");
    if (e & EPOLLRDHUP) strcat(text, " RDHUP");
    if (e & EPOLLHUP) strcat(text, " HUP");
    if (e & EPOLLERR) strcat(text, " ERR");
    return text;
}

static void watch(int op, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    if (epoll_ctl(ep, op, fd, &e) != 0) printf("epoll_ctl: %s\n", strerror(errno));
}

static int order(const void *a, const void *b) {
    uint64_t x = ((const struct epoll_event *)a)->data.u64, y = ((const struct epoll_event *)b)->data.u64;
    return x < y ? -1 : x > y;
}

static int wait_for(const char *what, int timeout) {
    struct epoll_event e[8];
    int n = epoll_wait(ep, e, 8, timeout);
    printf("%s: %d", what, n);
    if (n < 0) printf(" %s", strerror(errno));
    qsort(e, n < 0 ? 0 : n, sizeof *e, order);
    for (int i = 0; i < n; i++) printf(" [%d%s]", (int)e[i].data.u64, names(e[i].events));
    printf("\n");
    fflush(stdout);
    return n;
}

static void take(int fd) {
    char b[64];
    ssize_t n = read(fd, b, sizeof b);
    if (n < 0)
        printf("read: %s\n", strerror(errno));
    else
        printf("read: %d %.*s\n", (int)n, (int)(n > 0 && b[n - 1] == '\n' ? n - 1 : n), b);
    fflush(stdout);
}

static void from_the_host(void) {
    watch(EPOLL_CTL_ADD, 0, EPOLLIN, 1);
    wait_for("level", -1);
    wait_for("level again", 0);
    take(0);
    wait_for("level, nothing left", 0);
    watch(EPOLL_CTL_MOD, 0, EPOLLIN | EPOLLET, 2);
    wait_for("edge", -1);
    wait_for("edge told once", 50);
    take(0);
    wait_for("the next edge", -1);
    take(0);
    watch(EPOLL_CTL_DEL, 0, 0, 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    struct timeval none = {0, 0};
    printf("select now: %d\n", select(1, &set, NULL, NULL, &none));
    FD_SET(0, &set);
    printf("select: %d", select(1, &set, NULL, NULL, NULL));
    printf(" %d\n", FD_ISSET(0, &set) != 0);
    take(0);
    struct pollfd p = {.fd = 0, .events = POLLIN};
    int n = poll(&p, 1, -1);
    printf("poll to the end: %d %d\n", n, (p.revents & (POLLIN | POLLHUP)) != 0);
    take(0);
}

static int listener(struct sockaddr_in *a) {
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof *a;
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (struct sockaddr *)a, sizeof *a) || listen(l, 8) || getsockname(l, (struct sockaddr *)a, &len)) perror("listen");
    return l;
}

static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) printf("write: %s\n", strerror(errno));
}

static void *later(void *fd) {
    usleep(200000);
    uint64_t one = 1;
    if (write(*(int *)fd, &one, sizeof one) != sizeof one) perror("eventfd");
    return NULL;
}

static void sockets(void) {
    struct sockaddr_in a;
    int l = listener(&a);
    watch(EPOLL_CTL_ADD, l, EPOLLIN, 1);
    wait_for("no connection", 20);
    int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    watch(EPOLL_CTL_ADD, c, EPOLLOUT | EPOLLIN | EPOLLRDHUP | EPOLLET, 2);
    wait_for("not connected", 0);
    if (connect(c, (struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS) perror("connect");
    struct epoll_event e;
    int seen = 0;
    while (seen != 3 && epoll_wait(ep, &e, 1, 5000) == 1) seen |= (int)e.data.u64;
    printf("both ends: %d\n", seen);
    int s = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    wait_for("accepted", 0);
    watch(EPOLL_CTL_ADD, s, EPOLLIN | EPOLLRDHUP, 3);
    say(c, "ping");
    wait_for("server", 5000);
    take(s);
    take(s);
    wait_for("server, nothing left", 0);
    say(s, "a");
    wait_for("client edge", 5000);
    wait_for("client edge told once", 50);
    say(s, "b");
    wait_for("a new edge", 5000);
    take(c);
    watch(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT, 4);
    say(c, "once");
    wait_for("one shot", 5000);
    wait_for("one shot is over", 50);
    watch(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLRDHUP, 5);
    wait_for("armed again", 5000);
    take(s);
    // Something of the guest and something of the host in one wait.
    int ev = eventfd(0, EFD_NONBLOCK);
    pthread_t t;
    watch(EPOLL_CTL_ADD, ev, EPOLLIN, 6);
    pthread_create(&t, NULL, later, &ev);
    wait_for("woken by a thread", 5000);
    pthread_join(t, NULL);
    watch(EPOLL_CTL_DEL, ev, 0, 0);
    struct pollfd p = {.fd = ep, .events = POLLIN};
    printf("poll of the instance: %d\n", poll(&p, 1, 0));
    say(c, "nested");
    printf("poll of the instance: %d\n", poll(&p, 1, 5000));
    take(s);
    watch(EPOLL_CTL_DEL, c, 0, 0);
    shutdown(c, SHUT_WR);
    wait_for("half closed", 5000);
    take(s);
    close(c);
    watch(EPOLL_CTL_DEL, s, 0, 0);
    close(s);
    wait_for("closed ones are forgotten", 20);
    close(l);
}

static void many(void) {
    enum { N = 100 };
    static int fds[N][2];
    for (int i = 0; i < N; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds[i]) != 0) perror("socketpair");
        watch(EPOLL_CTL_ADD, fds[i][0], EPOLLIN, i);
    }
    for (int i = 0; i < N; i += 3) say(fds[i][1], "x");
    struct epoll_event e[N];
    int n = epoll_wait(ep, e, N, 1000), sum = 0;
    for (int i = 0; i < n; i++) sum += (int)e[i].data.u64;
    printf("of many: %d %d\n", n, sum);
    struct sockaddr_in a;
    int l = listener(&a);
    int c[20];
    for (int i = 0; i < 20; i++) {
        c[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof to;
        if (bind(c[i], (struct sockaddr *)&to, sizeof to) || getsockname(c[i], (struct sockaddr *)&to, &len)) perror("bind");
        watch(EPOLL_CTL_ADD, c[i], EPOLLIN, 1000 + i);
        if (i % 2 && sendto(l = c[i], "d", 1, 0, (struct sockaddr *)&to, sizeof to) != 1) perror("sendto");
    }
    usleep(50000);
    n = epoll_wait(ep, e, N, 1000), sum = 0;
    int host = 0;
    for (int i = 0; i < n; i++) host += e[i].data.u64 >= 1000;
    printf("of many, with sockets of the host: %d %d\n", n, host);
}

int main(void) {
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    from_the_host();
    sockets();
    many();
    return 0;
}
