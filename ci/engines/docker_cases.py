"""What a user does with docker, a case a line; see compare.Case."""
from compare import Case

OOM = "with runc Docker may hear of the event too late"

RUN = [
    Case("run --rm", "run --rm busybox echo hi", "^hi$"),
    Case("run -d, wait, logs", "run -d --name $N busybox sh -c 'echo out; echo err >&2; exit 5'; docker wait $N; docker logs $N 2>/dev/null; docker logs $N 2>&1 >/dev/null", "5.*out"),
    Case("run -i with piped stdin", "echo hello | run -i --rm busybox cat; seq 1 200000 | run -i --rm busybox md5sum", "hello"),
    Case("stdin that is closed at once", "run -i --rm busybox cat </dev/null; echo rc=$?; run --rm busybox cat; echo rc=$?", "rc=0"),
    Case("much output", "run --rm busybox seq 1 300000 | md5sum; run busybox sh -c 'seq 1 1000 >&2' 2>&1 | wc -l", "1000"),
    Case("run -t without stdin", "run -t --rm busybox sh -c 'tty; stty -a | grep -c isig; echo $TERM'", "/dev/pts/0"),
    Case("run -it", "printf 'echo 4$((1+1))\\nexit 3\\n' | on_tty docker run -it --rm --runtime=$RUNTIME busybox sh | grep -a -o ^42; "
         "on_tty \"docker run -it --rm --runtime=$RUNTIME busybox sh -c 'tty; exit 9'\"; echo rc=$?", "42.*rc=9"),
    Case("terminal size", "on_tty \"stty rows 33 cols 77; docker run -it --rm --runtime=$RUNTIME busybox sh -c 'sleep 1; stty size'\"", "33 77"),
    Case("run --init", "run --rm --init busybox sh -c 'cat /proc/1/comm; echo $$ | grep -vw 1 | wc -l'", "docker-init"),
    Case("run --user", "run --rm --user 1000:50 --group-add 7 busybox id; run --rm -u nobody busybox id -u; run --rm -u nosuch busybox id; echo rc=$?",
         "uid=1000.*65534.*rc=126|uid=1000.*65534.*rc=125"),
    Case("run --workdir", "run --rm --workdir /new/dir busybox pwd", "/new/dir"),
    Case("run -e and --env-file", "printf 'A=1\\nB=two words\\n' >env; run --rm --env-file env -e C=3 -h box busybox sh -c 'env | sort'", "B=two words"),
    Case("run --hostname", "run --rm --hostname box --domainname example.org busybox sh -c 'hostname; hostname -f; cat /etc/hostname; "
         "cat /proc/sys/kernel/domainname; grep -c box /etc/hosts'", "box"),
    Case("run --read-only", "run --rm --read-only busybox sh -c 'exec 2>&1; touch /x; touch /tmp/x; touch /dev/shm/x && echo shm; grep -c \" / .*ro[, ]\" /proc/mounts'",
         "Read-only.*shm"),
    Case("run --tmpfs", "run --rm --read-only --tmpfs /run:rw,size=1m,mode=1770 busybox sh -c 'exec 2>&1; touch /run/x && ls /run; stat -c %a /run; "
         "df -k /run | tail -1 | awk \"{print \\$2}\"; dd if=/dev/zero of=/run/y bs=1k count=2000 2>&1 | head -1'", "1024"),
    Case("run -v", "mkdir v; echo a >v/a; run --rm -v $PWD/v:/v busybox sh -c 'cat /v/a; echo b >/v/b; mkdir -p /v/c/d'; cat v/b; find v | sort", "v/c/d"),
    Case("run -v ro", "mkdir v; echo a >v/a; run --rm -v $PWD/v:/v:ro busybox sh -c 'exec 2>&1; cat /v/a; echo b >/v/b'; echo rc=$?; ls v", "Read-only.*rc=1"),
    Case("run -v of a file", "echo one >f; run --rm -v $PWD/f:/etc/f busybox sh -c 'exec 2>&1; cat /etc/f; echo two >>/etc/f; rm /etc/f'; cat f", "one.*busy.*two"),
    Case("run -v nested", "mkdir -p a b; echo x >a/x; echo y >b/y; run --rm -v $PWD/a:/m -v $PWD/b:/m/n:ro busybox sh -c "
         "'exec 2>&1; cat /m/x /m/n/y; touch /m/n/z; touch /m/z; mkdir /m/q; ls -R /m'; ls -R a b", "Read-only"),
    Case("run -v of a named volume", "docker volume create $N >/dev/null; run --rm -v $N:/v busybox sh -c 'echo kept >/v/f'; run --rm -v $N:/v busybox cat /v/f",
         "kept"),
    Case("run --mount", "mkdir v; run --rm --mount type=bind,src=$PWD/v,dst=/v,readonly --mount type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=700 busybox "
         "sh -c 'exec 2>&1; touch /v/x; stat -c %a /t; df -k /t | tail -1 | awk \"{print \\$2}\"'; run --rm --mount type=bind,src=/nosuch,dst=/v busybox true; echo rc=$?",
         "Read-only.*2048.*rc=125"),
    Case("run --volumes-from", "run --name $N -v /data busybox sh -c 'echo d >/data/f'; run --rm --volumes-from $N busybox cat /data/f", "d"),
    Case("run --cap-add and --cap-drop", "for o in '' --cap-drop=ALL '--cap-drop=ALL --cap-add=NET_BIND_SERVICE' --cap-add=SYS_TIME; do "
         "run --rm $o busybox grep Cap /proc/self/status; done; run --rm --cap-drop=CHOWN busybox chown 1 /tmp; echo rc=$?", "CapEff.*rc=1"),
    Case("run --cap-add SYS_ADMIN", "run --rm --cap-add SYS_ADMIN busybox sh -c 'grep CapEff /proc/self/status; mount -t tmpfs none /mnt && touch /mnt/x && ls /mnt'", "x$"),
    Case("run --security-opt", "run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status; "
         "run --rm --security-opt seccomp=unconfined busybox echo free", "NoNewPrivs:.1.*free"),
    Case("run --ulimit", "run --rm --ulimit nofile=100:200 --ulimit core=0 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'", "100.200"),
    Case("run --memory, over it", "run --rm --memory 64m busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; "
         "run --name $N --memory 64m busybox tail /dev/zero; echo rc=$?; docker inspect -f '{{.State.OOMKilled}}' $N", "rc=137",
         ours="67108864\nrc=137\ntrue\n", why=OOM),
    Case("run --cpus", "run --name $N --cpus 0.5 -d busybox sleep 100 >/dev/null; docker inspect -f '{{.HostConfig.NanoCpus}}' $N; "
         "id=$(docker inspect -f '{{.Id}}' $N); cat /sys/fs/cgroup/cpu/*/$id/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/*/$id/cpu.max", "50000"),
    Case("run --cpuset-cpus", "run --rm --cpuset-cpus 0 busybox sh -c 'nproc; grep Cpus_allowed_list /proc/self/status'", "^1"),
    Case("run --pids-limit", "run --rm --pids-limit 20 busybox sh -c 'for i in $(seq 30); do sleep 5 & done 2>/tmp/e; grep -c . /tmp/e | sed s/[1-9].*/some/'; echo rc=$?", "rc=|some"),
    Case("run --shm-size", "run --rm --shm-size 3m busybox sh -c 'df -k /dev/shm | tail -1 | awk \"{print \\$2}\"'", "3072"),
    Case("run --sysctl", "run --rm --sysctl net.ipv4.ip_unprivileged_port_start=81 --sysctl kernel.msgmax=9000 busybox "
         "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax", "81.9000"),
    Case("run --device", "run --rm --device /dev/null:/dev/nothing busybox sh -c 'ls -l /dev/nothing | cut -c1; echo x >/dev/nothing'", "c"),
    Case("run --oom-score-adj", "run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj", "500"),
    Case("run --entrypoint and --label", "run --name $N --entrypoint /bin/echo -l k=v busybox a b; docker inspect -f '{{.Config.Labels.k}}' $N", "a b.*v"),
    Case("run --cidfile and --name twice", "run -d --name $N --cidfile cid busybox sleep 100 >/dev/null; wc -c <cid; run --name $N busybox true 2>&1 | grep -o 'already in use'",
         "64.*already"),
    Case("masked and read-only paths", "run --rm busybox sh -c 'exec 2>&1; ls /sys/firmware | wc -l; echo 1 >/proc/sys/kernel/panic; "
         "touch /sys/x'; echo rc=$?", "Read-only"),
    Case("mount table", "run --rm busybox awk '$2 != \"/\" && $2 !~ /etc/ && $2 !~ /cgroup|acpi|scsi|firmware|timer|keys|kcore|sched|latency|interrupts|powercap/ {print $2, $3}' /proc/mounts | sort",
         "/dev/mqueue mqueue"),
    Case("resolv.conf, hosts", "run --rm --dns 10.1.2.3 --dns-search a.b --add-host there:10.9.9.9 busybox sh -c 'cat /etc/resolv.conf; grep there /etc/hosts'", "10.1.2.3"),
]

EXIT = [
    Case("exit codes", "code() { \"$@\" >/dev/null 2>&1; echo $?; }; code run --rm busybox sh -c 'exit 42'; code run --rm busybox /nosuch; code run --rm busybox nosuch; "
         "code run --rm busybox /etc/passwd; code run --rm busybox /tmp; code run --rm busybox sh -c 'sleep 9 & kill -9 $!; wait $!'; "
         "code run --rm --init busybox sh -c 'kill -TERM $$'; code run --rm --nosuch busybox; code run --rm --pull=never nosuch/image",
         "42.127.127.126.126.137.143.125.125"),
    Case("messages of failed starts", "for c in /nosuch nosuch /etc/passwd /tmp /etc/passwd/x; do run --rm busybox $c 2>&1 | grep -o 'exec: \".*'; done", "no such file.*not found.*denied"),
    Case("stop", "run -d --name $N busybox sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.1; done' >/dev/null; until_ok docker exec $N true; sleep 0.3; "
         "docker stop $N; docker inspect -f '{{.State.ExitCode}}' $N", "7$"),
    Case("stop of what ignores it", "run -d --name $N busybox sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; docker stop -t 1 $N; "
         "docker inspect -f '{{.State.ExitCode}}' $N", "137"),
    Case("kill -s", "run -d --name $N busybox sh -c 'trap \"echo usr1\" USR1; trap \"exit 3\" INT; echo up; while :; do sleep 0.1; done' >/dev/null; until_log $N up; "
         "docker kill -s USR1 $N; until_log $N usr1; docker kill -s INT $N; docker wait $N; docker logs $N; docker kill $N 2>&1 | grep -o 'is not running'", "usr1.*not running"),
    Case("kill", "run -d --name $N busybox sleep 100 >/dev/null; docker kill $N; docker wait $N; docker inspect -f '{{.State.Status}}' $N", "137.*exited"),
    Case("restart by hand", "run -d --name $N busybox sh -c 'echo start; exec sleep 100' >/dev/null; until_log $N start; docker restart -t 1 $N; "
         "sleep 0.5; docker logs $N; docker stop -t 0 $N; docker start $N; sleep 0.5; docker logs $N | wc -l", "3$"),
    Case("--restart", "run -d --name $N --restart on-failure:2 busybox sh -c 'echo try; exit 1' >/dev/null; for _ in $(seq 100); do "
         "[ $(docker logs $N | wc -l) = 3 ] && break; sleep 0.1; done; docker wait $N; docker logs $N; docker inspect -f '{{.RestartCount}}' $N", "try.try.try.2"),
    Case("rm -f of a running one", "run -d --name $N busybox sleep 100 >/dev/null; docker rm -f $N; docker ps -aq --filter name=$N | wc -l", "0$"),
    Case("create, start -a", "create --name $N busybox sh -c 'echo hi; exit 4' >/dev/null; docker inspect -f '{{.State.Status}}' $N; docker start -a $N; echo rc=$?", "created.hi.rc=4"),
]

INSIDE = [
    Case("exec", "run -d --name $N busybox sleep 100 >/dev/null; docker exec $N echo hi; echo in | docker exec -i $N cat; docker exec $N sh -c 'exit 6'; echo $?; "
         "docker exec $N nosuch | grep -o 'exec: \".*'; docker exec $N nosuch >/dev/null; echo $?; docker exec $N /etc/passwd | grep -o 'exec: \".*'; "
         "docker exec $N sh -c 'kill -9 $$'; echo $?", "hi.*in.*6.*12[67]"),
    Case("exec -u -w -e", "run -d --name $N -e A=1 busybox sleep 100 >/dev/null; docker exec -u 1000:50 -w /tmp -e B=2 $N sh -c 'id; pwd; env | sort'", "uid=1000.*/tmp"),
    Case("exec -it", "run -d --name $N busybox sleep 100 >/dev/null; on_tty docker exec -it $N sh -c \"'tty; exit 5'\" | sed 's,\\^@,,g'; echo rc=${PIPESTATUS[0]}", "pts.*rc=5"),
    Case("exec -d", "run -d --name $N busybox sleep 100 >/dev/null; docker exec -d $N sh -c 'echo done >/tmp/f'; until_ok docker exec $N test -s /tmp/f; docker exec $N cat /tmp/f", "done"),
    Case("exec, many at once", "run -d --name $N busybox sleep 100 >/dev/null; for i in $(seq 10); do docker exec $N sh -c \"echo $i\" & done | sort -n | tr '\\n' ' '; wait", "1 2 3 4 5 6 7 8 9 10"),
    Case("exec in what has ended", "run --name $N busybox true; docker exec $N true 2>&1 | grep -o 'is not running'; echo", "not running"),
    Case("attach", "run -di --name $N busybox sh -c 'read x; echo got $x; exit 4' >/dev/null; echo hello | docker attach $N; echo rc=$?; docker logs $N", "hello"),
    Case("attach, detach keys", "run -dit --name $N busybox sh >/dev/null; (sleep 0.5; printf 'echo 4$((1+1))\\n'; sleep 1; printf '\\020\\021') | "
         "on_tty docker attach $N | grep -a -o ^42; docker inspect -f '{{.State.Running}}' $N", "42.true"),
    Case("logs -f", "run -d --name $N busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done' >/dev/null; docker logs -f $N; docker logs --tail 1 $N", "1.2.3.3"),
    Case("cp both ways", "run -d --name $N busybox sleep 100 >/dev/null; mkdir d; echo in >d/f; docker cp d $N:/tmp/; docker exec $N cat /tmp/d/f; docker exec $N sh -c 'echo out >/tmp/d/g'; "
         "docker cp $N:/tmp/d e; cat e/g; docker cp $N:/etc/passwd - | tar t", "in.out.passwd"),
    Case("pause", "run -d --name $N busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done' >/dev/null; until_log $N 2; docker pause $N; "
         "docker inspect -f '{{.State.Status}}' $N; sleep 0.3; a=$(docker logs $N | wc -l); sleep 0.5; [ $a = $(docker logs $N | wc -l) ] && echo still; docker exec $N true; echo rc=$?; "
         "docker unpause $N; sleep 0.5; [ $a -lt $(docker logs $N | wc -l) ] && echo on; docker pause $N; docker stop -t 1 $N; docker inspect -f '{{.State.Status}}' $N", "paused.still.*on"),
    Case("stats", "run -d --name $N --memory 100m busybox sleep 100 >/dev/null; docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' $N | sed 's/ [0-9.]*[A-Za-z]* .*/ some/'; "
         "docker stats --no-stream --format '{{.PIDs}} {{.CPUPerc}}' $N | grep -cE '[1-9][0-9]* [0-9.]+%'", "some.1"),
    Case("top", "run -d --name $N busybox sh -c 'sleep 100 & sleep 200' >/dev/null; sleep 0.5; docker top $N -eo pid,comm,args | sed 's/^ *[0-9]* *//' | sort; "
         "docker top $N | awk '{print $1, $8, $9, $10, $11}' | sort; docker exec -d $N sleep 300; until_ok eval 'docker top $N | grep 300'; docker top $N -o pid,args | wc -l", "sleep 100.*sleep 200.*4$"),
    Case("diff, commit", "run --name $N busybox sh -c 'echo new >/new; rm /etc/hosts 2>/dev/null; rm /bin/yes; mkdir /d'; docker diff $N | sort; docker commit $N $N >/dev/null; "
         "run --rm $N cat /new", "A /new.*D /bin/yes.*new"),
    Case("export", "run --name $N busybox sh -c 'echo e >/exported'; docker export $N | tar -xO exported", "e"),
    Case("update", "run -d --name $N --memory 100m --memory-swap 100m busybox sleep 100 >/dev/null; id=$(docker inspect -f '{{.Id}}' $N); docker update --cpus 0.3 --memory 200m --memory-swap 400m --pids-limit 50 $N; "
         "cat /sys/fs/cgroup/cpu/*/$id/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/*/$id/cpu.max; "
         "docker exec $N sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'", "30000.*209715200"),
    Case("HEALTHCHECK", "run -d --name $N --health-cmd 'test -f /tmp/ok' --health-interval 300ms --health-retries 2 busybox sleep 100 >/dev/null; "
         "healthy() { [ $(docker inspect -f '{{.State.Health.Status}}' $N) = $1 ]; }; until_ok healthy unhealthy && echo sick; docker exec $N touch /tmp/ok; until_ok healthy healthy && echo well",
         "sick.well"),
    Case("inspect, port, ps", "run -d --name $N -p 127.0.0.1::80 busybox sleep 100 >/dev/null; docker inspect -f '{{.State.Running}} {{.HostConfig.Privileged}}' $N; "
         "docker port $N | sed 's/:[0-9]*$/:port/'; docker ps --filter name=$N --format '{{.Names}} {{.Command}}'", "127.0.0.1:port"),
    Case("rename", "run -d --name $N busybox sleep 100 >/dev/null; docker rename $N ${N}b; docker exec ${N}b hostname | wc -c", "13"),
    Case("events", "since=$(date +%s); run --rm --name $N busybox true; docker events --since $since --until $(($(date +%s)+1)) --filter container=$N --format '{{.Action}}'", "create.*start.*die.*destroy"),
    Case("run --ipc none, private, shareable", "for i in none private shareable; do run --rm --ipc $i busybox sh -c 'ls -d /dev/shm 2>&1; wc -l </proc/sysvipc/shm'; done", "/dev/shm"),
    Case("run --add-host, --dns, --link", "run -d --name $N busybox sleep 100 >/dev/null; run --rm --add-host there:192.0.2.7 --dns 192.0.2.9 --dns-search example.org --link $N:other busybox sh -c "
         "'grep there /etc/hosts; cat /etc/resolv.conf; grep -c other /etc/hosts; env | grep -c OTHER_NAME'", "192.0.2.7.*192.0.2.9.*1.1"),
    Case("run --ip", "net=172.29.$([ $RUNTIME = runc ] && echo 8 || echo 9); docker network create --subnet $net.0/24 $N >/dev/null; run --rm --network $N --ip $net.5 busybox "
         "ip -o -4 addr show eth0 | sed 's/.*inet 172.29.[89]//;s/ .*//'", "^.5/24"),
    Case("run --security-opt systempaths and a profile", "echo '{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"mkdir\", \"mkdirat\"], \"action\": \"SCMP_ACT_ERRNO\"}]}' >p; "
         "run --rm --security-opt seccomp=p busybox sh -c 'mkdir /x 2>&1; echo rc=$?'; run --rm --security-opt systempaths=unconfined busybox sh -c 'grep -c \"/proc/\" /proc/mounts; touch /proc/sys/kernel/hostname; echo rc=$?'", "not permitted.rc=1.0.rc=0"),
    Case("run --stop-signal, --stop-timeout", "run -d --name $N --stop-signal USR1 --stop-timeout 1 busybox sh -c 'trap \"exit 8\" USR1; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; docker stop $N >/dev/null; docker inspect -f '{{.State.ExitCode}}' $N", "^8"),
    Case("signals through the client", "(docker run --runtime=$RUNTIME --name $N busybox sh -c 'trap \"echo got; exit 3\" INT; echo up; while :; do sleep 0.1; done'; echo rc=$?) & until_log $N up; "
         "kill -INT $(pgrep -f \"^docker run .*--name $N\"); wait", "up.*got.rc=3"),
    Case("exec while the container ends", "run -d --name $N busybox sleep 100 >/dev/null; (docker exec $N sh -c 'echo in; exec sleep 99'; echo rc=$?) & sleep 1; docker kill $N >/dev/null; wait", "in.rc=137"),
    Case("kill and rm -f of what is paused", "run -d --name $N busybox sleep 100 >/dev/null; docker pause $N >/dev/null; docker kill $N 2>&1 | sed s/$N//; docker inspect -f '{{.State.Status}}' $N; docker rm -f $N; docker ps -aq --filter name=$N | wc -l", "0$"),
    Case("wait for many", "for i in 1 2 3; do run -d --name $N$i busybox sh -c \"sleep 0.$i; exit $i\" >/dev/null; done; docker wait ${N}1 ${N}2 ${N}3", "1.2.3"),
    Case("commit of a running one", "run -d --name $N busybox sh -c 'echo a >/a; sleep 100' >/dev/null; until_ok docker exec $N test -f /a; docker commit $N $N >/dev/null; docker inspect -f '{{.State.Status}}' $N; run --rm $N cat /a", "running.a"),
    Case("cp and volumes, tmpfs", "echo x >f; run -d --name $N -v /vol --tmpfs /tmp busybox sleep 100 >/dev/null; docker cp f $N:/vol/; docker exec $N cat /vol/f; docker cp f $N:/tmp/; docker exec $N cat /tmp/f 2>&1 | grep -o 'No such'", "x"),
    Case("restart of a killed one, on-failure", "run -d --name $N --restart on-failure:2 busybox sh -c 'echo x; exit 1' >/dev/null; tries() { [ \"$(docker inspect -f '{{.State.Status}} {{.RestartCount}}' $N)\" = \"exited 2\" ]; }; until_ok tries; docker inspect -f '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}' $N; docker logs $N | wc -l", "exited 2 1.3"),
    Case("limits of other kinds", "run --rm --cpu-shares 512 --memory 64m --memory-reservation 32m --memory-swappiness 0 --blkio-weight 300 --cpu-period 50000 --cpu-quota 25000 busybox echo ok 2>&1 | grep -v WARNING", "ok"),
]

LINKS = "ip -o link | cut -d: -f2 | cut -d@ -f1 | grep -v veth | sort"
NETWORK = [
    Case("--network none", f"run --rm --network none busybox sh -c '{LINKS}; ip route; httpd -p 80 -h /etc; wget -q -O- http://127.0.0.1/hosts | grep -c 127.0.0.1'", "lo.1"),
    Case("--network host", f"run --rm --network host busybox sh -c '{LINKS}'", "docker0"),
    Case("bridge", "run --rm busybox sh -c 'ip -o -4 addr show eth0 | sed \"s/.*inet //;s/\\.[0-9]*\\/.*//\"; ip route | sed s/src.*//'", "default via 172.29.7.1"),
    Case("ping", "run --rm busybox ping -c 1 -W 2 172.29.7.1 | grep -o '1 packets received'", "received"),
    Case("-p", "run -d --name $N -p 127.0.0.1::80 busybox sh -c 'echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null; "
         "port=$(docker port $N 80 | head -1); until_ok busybox wget -q -O- http://$port/; busybox wget -q -O- http://$port/; docker stop -t 0 $N >/dev/null; busybox wget -q -O- http://$port/ 2>&1 | grep -o refused",
         "page.refused"),
    Case("two containers that talk", "run -d --name $N busybox nc -ll -p 7 -e cat >/dev/null; ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N); "
         "for i in 1 2 3 4 5; do echo over there | run -i --rm busybox nc -w 2 $ip 7 && break; done", "over there"),
    Case("a network of one's own, by name", "docker network create $N >/dev/null; run -d --name $N --network $N --network-alias other busybox sh -c 'echo by-name >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null; "
         "run --rm --network $N busybox sh -c \"cat /etc/resolv.conf | grep nameserver; for i in 1 2 3 4 5; do wget -q -O- http://$N/ && break; sleep 0.5; done; wget -q -O- http://other/\"", "127.0.0.11.*by-name.by-name"),
    Case("network connect", "docker network create $N >/dev/null; run -d --name $N busybox sleep 100 >/dev/null; docker network connect $N $N; docker exec $N ip -o -4 addr | grep -c eth; "
         "docker network disconnect $N $N; docker exec $N ip -o -4 addr | grep -c eth", "2.1"),
    Case("--network container:", f"run -d --name $N busybox sh -c 'echo there >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null; "
         f"run --rm --network container:$N busybox sh -c '{LINKS}; for i in 1 2 3 4 5; do wget -q -O- http://127.0.0.1/ && break; sleep 0.5; done; hostname | wc -c'", "eth0.*lo.there.13"),
    Case("a network plugged in between create and start", f"docker network create $N >/dev/null; create --name $N busybox sh -c '{LINKS}' >/dev/null; docker network connect $N $N; docker start -a $N", "eth0.*eth1"),
    Case("--pid container:", "run -d --name $N busybox sh -c 'trap \"echo told; exit 3\" USR1; while :; do sleep 0.1; done' >/dev/null; "
         "run --rm --pid container:$N busybox sh -c 'ps -o args | grep -c \"^sh -c trap\"; [ $$ != 1 ] && echo not the first; ip -o -4 addr | grep -c eth0; cat /proc/1/root/etc/hostname | wc -c; hostname | wc -c; kill -USR1 1'; "
         "docker wait $N; docker logs $N", "1.not the first.1.13.13.3.told"),
    Case("--pid container: with its network, for a look", "run -d --name $N busybox sh -c 'echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null; "
         "run --rm --pid container:$N --network container:$N --cap-add SYS_PTRACE busybox sh -c 'for i in 1 2 3 4 5; do wget -q -O- http://127.0.0.1/ && break; sleep 0.5; done; ls /proc/1/root/tmp; netstat -ltn | grep -c :80'",
         "page.index.html.1"),
    Case("--pid container: of one that ends", "run -d --name $N busybox sleep 100 >/dev/null; run -d --name ${N}b --pid container:$N busybox sleep 100 >/dev/null; docker exec ${N}b ps -o args | grep -c '^sleep 100'; "
         "docker top ${N}b -o pid,args | sed 's/^ *[0-9]* *//'; docker kill $N >/dev/null; docker wait ${N}b", "2.*sleep 100.137"),
    Case("--pid container:, exec, stop, restart", "run -d --name $N busybox sleep 100 >/dev/null; run -d --name ${N}b --pid container:$N busybox sh -c 'trap \"exit 4\" TERM; sleep 200 & while :; do sleep 0.1; done' >/dev/null; "
         "docker exec ${N}b sh -c 'ps -o args | grep -c \"^sleep 200\"'; docker stop ${N}b >/dev/null; docker inspect -f '{{.State.ExitCode}}' ${N}b; docker start ${N}b >/dev/null; docker rm -f ${N}b >/dev/null; "
         "docker exec $N ps -o args | grep -c '^sleep 200'; true", "1.4.0"),
    Case("--ipc container:", "run -d --ipc shareable --name $N busybox sh -c 'echo there >/dev/shm/f; sleep 123' >/dev/null; until_ok docker exec $N test -f /dev/shm/f; "
         "run --rm --ipc container:$N busybox sh -c 'cat /dev/shm/f; echo $$; ps -o args | grep -c \"^sleep 123\"; ip -o -4 addr | grep -c eth0; echo back >/dev/shm/g'; docker exec $N cat /dev/shm/g", "there.1.0.1.back"),
    Case("--ipc container:, not shareable", "run -d --ipc private --name $N busybox sleep 100 >/dev/null; run --rm --ipc container:$N busybox true 2>&1 | grep -o 'non-shareable IPC'", "non-shareable"),
    Case("--pid host", "run --rm --pid host busybox sh -c '[ $$ -gt 20 ] && ls -d /proc/[0-9]* | wc -l | sed s/.*[0-9][0-9]/many/' 2>&1; echo rc=$?", "many.rc=0",
         ours="rc=1\n", why="a guest kernel knows its own processes only"),
    Case("--uts host", "[ \"$(run --rm --uts host busybox hostname)\" = $(hostname) ] && echo same", "same"),
]

BUILD = [
    Case("build", "printf 'FROM busybox\\nARG X=1\\nENV Y=2\\nRUN echo $X$Y >/made && mkdir -p /w && id -u\\nWORKDIR /w\\nCOPY f /w/f\\nRUN cat f >>/made; ls -l /w | wc -l\\n"
         "USER nobody\\nCMD [\"cat\", \"/made\"]\\n' >Dockerfile; echo file >f; DOCKER_BUILDKIT=0 docker build -q -t $N . | wc -c; run --rm $N; "
         "printf 'FROM busybox\\nRUN exit 3\\n' >Dockerfile; DOCKER_BUILDKIT=0 docker build -q . 2>&1 | grep -o 'returned a non-zero code: 3'", "12.file.*code: 3"),
]

MANY = [
    Case("20 at once", "for i in $(seq 20); do run --rm --network none busybox echo $i & done | sort -n | tr '\\n' ' '; wait", "^1 2 3 .* 20", timeout=120),
    Case("100, one after the other", "for i in $(seq 100); do run --rm --network none busybox true || echo failed $i; done; until_ok eval '[ -z \"$(docker ps -aq)\" ]'; docker ps -aq | wc -l", timeout=300, full=True),
]

CASES = RUN + EXIT + INSIDE + NETWORK + BUILD + MANY

UNIT = "unit=docker-$(docker inspect -f '{{.Id}}' $N).scope; "
SYSTEMD = [
    Case("cgroup driver", "docker info -f '{{.CgroupDriver}}'; run --rm --memory 64m --cpus 0.5 --pids-limit 50 busybox echo hi", "systemd.hi"),
    Case("a unit for each container", "run -d --name $N busybox sleep 100 >/dev/null; " + UNIT + "systemctl is-active $unit; systemctl show -p Slice --value $unit; "
         "docker exec $N echo in; docker rm -f $N >/dev/null; systemctl is-active $unit || true", "active.system.slice.in.*inactive"),
    Case("limits", "run -d --name $N --cpus 0.5 --memory 100m --memory-swap 100m busybox sleep 100 >/dev/null; " + UNIT + "systemctl show -p CPUQuotaPerSecUSec --value $unit; "
         "docker update --cpus 0.3 $N >/dev/null; systemctl show -p CPUQuotaPerSecUSec --value $unit; systemctl daemon-reload; sleep 0.3; "
         "cat /sys/fs/cgroup/cpu/system.slice/$unit/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/system.slice/$unit/cpu.max", "500ms.300ms.30000"),
    Case("its cgroups stay its own when other units come and go", "run -d --name $N busybox sleep 100 >/dev/null; run --rm busybox true; run -d --label test=$N busybox sleep 100 >/dev/null; "
         "systemctl daemon-reload; grep -v -c docker-$(docker inspect -f '{{.Id}}' $N).scope /proc/$(docker inspect -f '{{.State.Pid}}' $N)/cgroup || true", "^0"),
    Case("out of memory", "run --name $N --memory 64m busybox tail /dev/zero; echo rc=$?; docker inspect -f '{{.State.OOMKilled}}' $N", "rc=137", ours="rc=137\ntrue\n", why=OOM),
    Case("pause, stop", "run -d --name $N busybox sleep 100 >/dev/null; docker pause $N; docker inspect -f '{{.State.Status}}' $N; docker unpause $N; docker stop -t 0 $N; "
         "docker inspect -f '{{.State.ExitCode}}' $N", "paused.*137"),
]
