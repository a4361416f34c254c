package gatewaytest

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Redis is a real redis-server on a loopback port, with a directory of its own. It
// writes every change to disk before it acknowledges it, so that no crash takes
// anything back.
type Redis struct {
	Process
	address string
	bus     string // port, of the first node of a Cluster
	dir     string
}

// NewRedis starts a redis-server, with more arguments for its command line.
func NewRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("the tests need a redis-server, see scripts/install-tools: %v", err)
	}
	r := &Redis{address: FreeAddress(t), dir: t.TempDir()}
	_, port, _ := net.SplitHostPort(r.address)
	args = append([]string{
		"--bind", "127.0.0.1", "--port", port, "--dir", r.dir, "--daemonize", "no",
		"--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, args...)
	r.Process = newProcess(t, "redis-server", func() *exec.Cmd {
		cmd := exec.Command(path, args...)
		log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	})
	t.Cleanup(func() {
		if r.Running() {
			r.Kill()
		}
		if t.Failed() {
			said, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			t.Logf("redis-server's log:\n%s", said[max(0, len(said)-5_000):])
		}
	})
	r.Start()
	return r
}

// Address is host and port.
func (r *Redis) Address() string { return r.address }

// Start runs the server, also again, with what it has on disk, and waits until it
// has read that.
func (r *Redis) Start() {
	r.t.Helper()
	r.launch()
	var answer string
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if answer, err = r.Say("PING"); answer == "+PONG" {
			return
		}
	}
	r.t.Fatalf("redis-server is not ready: %s, %v", answer, err)
}

// Say sends a command on a connection of its own and returns the first line of the
// answer, which may be an error.
func (r *Redis) Say(words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", r.address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, strings.Join(words, " ")+"\r\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// Store is the configuration of session.store for it, with more keys of
// session.store.redis.
func (r *Redis) Store(more map[string]any) map[string]any {
	redis := map[string]any{"addresses": []string{r.address}}
	for key, value := range more {
		redis[key] = value
	}
	return map[string]any{"redis": redis}
}
