package gatewaytest

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sentinel is a real Redis Sentinel on a loopback port, which decides alone about
// its master.
type Sentinel struct {
	Process
	address string
}

// NewSentinel starts a Sentinel that watches a server as the master set of that
// name, with more lines of its configuration.
func NewSentinel(t testing.TB, name string, master *Redis, lines ...string) *Sentinel {
	t.Helper()
	s := &Sentinel{address: FreeAddress(t)}
	_, port, _ := net.SplitHostPort(s.address)
	_, watched, _ := net.SplitHostPort(master.Address())
	dir := t.TempDir()
	config := filepath.Join(dir, "sentinel.conf")
	lines = append([]string{
		"sentinel monitor " + name + " 127.0.0.1 " + watched + " 1",
		"sentinel down-after-milliseconds " + name + " 500", "sentinel failover-timeout " + name + " 3000",
	}, lines...)
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Process = newProcess(t, "the Sentinel", func() *exec.Cmd {
		return exec.Command("redis-server", config, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--sentinel")
	})
	t.Cleanup(func() {
		if s.Running() {
			s.Kill()
		}
	})
	s.launch()
	for end := time.Now().Add(20 * time.Second); !answers(s.address); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the Sentinel does not answer")
		}
	}
	return s
}

// Address is host and port.
func (s *Sentinel) Address() string { return s.address }

// answers tells whether somebody says anything to PING, be it that one has to log in.
func answers(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err == nil
}
