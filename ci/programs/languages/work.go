// Real work of Go: an HTTP server and many clients, ten thousand goroutines, signals, files, processes, timers.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func web() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d", r.URL.Path, len(b))
	})}
	go s.Serve(l)
	var wg sync.WaitGroup
	var good int64
	t := &http.Transport{MaxConnsPerHost: 20}
	client := &http.Client{Transport: t}
	for i := 0; i < 400; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			r, err := client.Post(fmt.Sprintf("http://%s/%d", l.Addr(), i), "text/plain", bytes.NewReader(make([]byte, i*50)))
			must(err)
			b, err := io.ReadAll(r.Body)
			must(err)
			r.Body.Close()
			if string(b) == fmt.Sprintf("/%d %d", i, i*50) {
				atomic.AddInt64(&good, 1)
			}
		}(i)
	}
	wg.Wait()
	t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fmt.Println("http", good, s.Shutdown(ctx))
}

func goroutines() {
	const n = 10000
	in, out := make(chan int), make(chan int, 100)
	var wg sync.WaitGroup
	for i := 0; i < n; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v := <-in
			time.Sleep(time.Duration(v%10) * time.Millisecond)
			out <- v * 2
		}()
	}
	many := runtime.NumGoroutine() > n
	go func() {
		for i := 0; i < n; i++ {
			in <- i
		}
	}()
	sum := 0
	for i := 0; i < n; i++ {
		sum += <-out
	}
	wg.Wait()
	fmt.Println("goroutines", many, sum)
}

// Loops without calls: only the runtime's preemption signal stops them.
func preemption() {
	runtime.GOMAXPROCS(4)
	var stop int32
	var wg sync.WaitGroup
	var spun [4]uint64
	for i := range spun {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			var n uint64
			for atomic.LoadInt32(&stop) == 0 {
				for j := 0; j < 1000000; j++ {
					n += uint64(j)
				}
			}
			spun[i] = n
		}(i)
	}
	for i := 0; i < 20; i++ {
		time.Sleep(5 * time.Millisecond)
		runtime.GC()
	}
	atomic.StoreInt32(&stop, 1)
	wg.Wait()
	fmt.Println("preemption", spun[0] > 0)
}

func signals() {
	c := make(chan os.Signal, 100)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGHUP)
	n := 0
	for i := 0; i < 50; i++ {
		must(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		<-c
		n++
	}
	signal.Ignore(syscall.SIGHUP)
	must(syscall.Kill(os.Getpid(), syscall.SIGHUP))
	fmt.Println("signals", n)
	func() {
		defer func() { fmt.Println("recovered", recover() != nil) }()
		var p *int
		fmt.Println(*p)
	}()
}

func files() {
	d, err := os.MkdirTemp("", "go")
	must(err)
	defer os.RemoveAll(d)
	var wg sync.WaitGroup
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			must(os.WriteFile(filepath.Join(d, fmt.Sprint(i)), make([]byte, i*100), 0o600))
		}(i)
	}
	wg.Wait()
	var total int64
	must(filepath.Walk(d, func(_ string, i os.FileInfo, err error) error {
		if !i.IsDir() {
			total += i.Size()
		}
		return err
	}))
	fmt.Println("files", total)
}

func processes() {
	var wg sync.WaitGroup
	var sum int64
	for i := 0; i < 20; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			c := exec.Command("sh", "-c", fmt.Sprintf("cat; exit %d", i))
			c.Stdin = bytes.NewReader(make([]byte, 100000))
			out, err := c.Output()
			atomic.AddInt64(&sum, int64(len(out)))
			if e, ok := err.(*exec.ExitError); ok {
				atomic.AddInt64(&sum, int64(e.ExitCode()))
			}
		}(i)
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fmt.Println("processes", sum, exec.CommandContext(ctx, "sleep", "100").Run())
}

func sockets() {
	u, err := net.Listen("unix", "/tmp/go.sock")
	must(err)
	go func() {
		c, _ := u.Accept()
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.Dial("unix", "/tmp/go.sock")
	must(err)
	go func() {
		c.Write(make([]byte, 500000))
		c.(*net.UnixConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	fmt.Println("unix", n, err)
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(err)
	p.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, _, err = p.ReadFrom(make([]byte, 10))
	fmt.Println("timeout", err.(net.Error).Timeout())
}

func main() {
	web()
	goroutines()
	preemption()
	signals()
	files()
	processes()
	sockets()
	os.Exit(3)
}
