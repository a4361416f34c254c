package redisstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// server is a real redis-server on a loopback port, in a directory of its own.
type server struct {
	dir  string
	port string
	args []string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
}

// starts runs on one thread for ever, so that no server outlives this process:
// their death is tied to the thread that began them.
var starts = sync.OnceValue(func() chan func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return todo
})

// launch starts a server that dies with the test.
func launch(t testing.TB, args ...string) *server {
	t.Helper()
	sv, err := newServer(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sv.kill)
	return sv
}

func newServer(dir string, args ...string) (*server, error) {
	var last error
	for range 5 { // somebody may be faster and have the port
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		sv := &server{dir: dir, port: port, args: args}
		if last = sv.start(); last == nil {
			return sv, nil
		}
	}
	return nil, last
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func (sv *server) addr() string { return "127.0.0.1:" + sv.port }

// start starts the server, also again, with what it has on disk.
func (sv *server) start() error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("the tests need a redis-server, see scripts/install-tools: %w", err)
	}
	log, err := os.Create(filepath.Join(sv.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"--port", sv.port, "--bind", "127.0.0.1", "--dir", sv.dir, "--save", "", "--daemonize", "no"}, sv.args...)
	if len(sv.args) > 0 && strings.HasSuffix(sv.args[0], "sentinel.conf") {
		args = []string{sv.args[0], "--port", sv.port, "--bind", "127.0.0.1", "--dir", sv.dir, "--sentinel"}
	}
	sv.cmd = exec.Command(path, args...)
	sv.cmd.Stdout, sv.cmd.Stderr = log, log
	sv.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	starts() <- func() { started <- sv.cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	sv.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(sv.cmd, sv.done)
	if err := sv.await(); err != nil {
		sv.kill()
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("redis-server: %w\n%s", err, said)
	}
	return nil
}

// await waits until the server listens.
func (sv *server) await() error {
	for begun := time.Now(); time.Since(begun) < 10*time.Second; {
		if _, err := sv.say("PING"); err == nil {
			return nil
		}
		select {
		case <-sv.done:
			return errors.New("it stopped")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return errors.New("it does not answer")
}

// kill ends the server as a crash does.
func (sv *server) kill() {
	sv.signal(syscall.SIGKILL)
	<-sv.done
}

func (sv *server) signal(sig syscall.Signal) { sv.cmd.Process.Signal(sig) }

// say sends a command on a connection of its own and returns the first line of the
// answer. An error that the server answers is an answer.
func (sv *server) say(words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", sv.addr(), time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// must is say for a command that succeeds.
func (sv *server) must(t testing.TB, words ...string) string {
	t.Helper()
	answer, err := sv.say(words...)
	if err != nil || strings.HasPrefix(answer, "-") {
		t.Fatalf("%s: %s, %v", words, answer, err)
	}
	return answer
}

// client is a client of the server's that the store knows nothing of.
func (sv *server) client(t testing.TB) rueidis.Client {
	t.Helper()
	return sv.clientWith(t, "")
}

func (sv *server) clientWith(t testing.TB, password string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{sv.addr()}, Password: password, ForceSingleClient: true, DisableCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// launchCluster starts three nodes that share the slots.
func launchCluster(dir string, args ...string) ([]*server, error) {
	var nodes []*server
	for i := range 3 {
		bus, err := freePort()
		if err != nil {
			return nodes, err
		}
		home := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(home, 0o700); err != nil {
			return nodes, err
		}
		node, err := newServer(home, append([]string{"--cluster-enabled", "yes", "--cluster-port", bus}, args...)...)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, node)
		first, last := i*16384/3, (i+1)*16384/3-1
		for _, words := range [][]string{
			{"CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(first), fmt.Sprint(last)},
			{"CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i + 1)},
			{"CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].args[3]},
		} {
			if i == 0 && words[1] == "MEET" {
				continue
			}
			if answer, err := node.say(words...); err != nil || answer != "+OK" {
				return nodes, fmt.Errorf("%s: %s, %w", words, answer, err)
			}
		}
	}
	return nodes, awaitCluster(nodes)
}

// awaitCluster waits until every node knows the others.
func awaitCluster(nodes []*server) error {
	for _, node := range nodes {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{node.addr()}, ForceSingleClient: true, DisableCache: true})
		if err != nil {
			return err
		}
		defer c.Close()
		for begun := time.Now(); ; {
			info, err := c.Do(context.Background(), c.B().ClusterInfo().Build()).ToString()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				break
			}
			if time.Since(begun) > 20*time.Second {
				return fmt.Errorf("the cluster does not come together: %v\n%s", err, info)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
