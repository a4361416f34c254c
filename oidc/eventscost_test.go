package oidc_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// maxStreamCost is what one idle event stream may cost (issue 3), in bytes.
const maxStreamCost = 25 << 10

// The browsers are a process of their own, so that only our side is counted: all
// that net/http, the listeners and the watched sessions hold beyond the sessions.
func TestIdleEventStreamsCostLittle(t *testing.T) {
	if addr := os.Getenv("SESSIONGATE_TEST_EVENTS"); addr != "" {
		holdEventStreams(t, addr)
		return
	}
	n := 2000
	if more, err := strconv.Atoi(os.Getenv("SESSIONGATE_TEST_STREAMS")); err == nil {
		n = more
	}
	g := newGateway(t, newProvider(t))
	cookies := g.manySessions(n)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: g.Config.Handler}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })

	before := inUse()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIdleEventStreamsCostLittle$")
	cmd.Env = append(os.Environ(), "SESSIONGATE_TEST_EVENTS="+l.Addr().String())
	cmd.Stderr = os.Stderr
	cmd.Stdin = strings.NewReader(strings.Join(cookies, "\n"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "open\n" {
		t.Fatalf("browsers say %q, %v", line, err)
	}
	cost := (inUse() - before) / int64(n)
	t.Logf("%d idle event streams: %.1f KiB each", n, float64(cost)/1024)
	if cost > maxStreamCost {
		t.Errorf("an idle event stream costs %d bytes, want at most %d", cost, maxStreamCost)
	}
}

// inUse is what the process holds, after all that is garbage has gone.
func inUse() int64 {
	for range 3 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// manySessions makes sessions and returns their cookies.
func (g *gateway) manySessions(n int) []string {
	cookies := make([]string, n)
	var work sync.WaitGroup
	const makers = 64
	for i := range makers {
		work.Go(func() {
			for j := i; j < n; j += makers {
				_, c, err := g.app.Create(g.t.Context(), session.Login{
					Subject: fmt.Sprint("user ", j), Token: &oauth2.Token{AccessToken: "canary"}, FlowBegan: time.Now(),
				})
				if err != nil {
					g.t.Error(err)
					return
				}
				cookies[j] = c.Name + "=" + c.Value
			}
		})
	}
	work.Wait()
	return cookies
}

// holdEventStreams opens an event stream for each cookie of standard input, and
// keeps them until it is killed.
func holdEventStreams(t *testing.T, addr string) {
	var conns []net.Conn
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		fmt.Fprintf(conn, "GET /bff/events HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"+
			"Accept: text/event-stream\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/\r\n"+
			"Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nConnection: keep-alive\r\nCookie: %s\r\n\r\n", in.Text())
	}
	buffer := make([]byte, 4096)
	for _, conn := range conns {
		for got := ""; !strings.Contains(got, ": sessiongate\n\n"); {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buffer[:n])
		}
	}
	fmt.Println("open")
	select {}
}
