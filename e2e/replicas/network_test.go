package replicas

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sessiongate/e2e/gatewaytest"
)

// A network that drops packets is told of by nobody, not even by TCP: no reset, no
// end, and nothing is acknowledged.
func TestAReplicaWhosePacketsAreDropped(t *testing.T) {
	redis := gatewaytest.NewRedis(t)
	w := silentWorld(t, redis.Store(nil))
	line, drop, restore := newNetwork(t, redis.Address())
	reach(t, w.Gateways[1], line.listener.Addr().String(), map[string]any{"insecure_plaintext": true})
	w.Start()
	hearNothing(t, w, 0, drop, restore)
}

// newNetwork puts a network of its own between a gateway and its redis-server. Where
// none may be made, which takes root and iproute2, what stands for it is a relay
// that passes nothing on, and the test says so.
func newNetwork(t *testing.T, to string) (line *wire, drop, restore func()) {
	t.Helper()
	name := fmt.Sprintf("sg%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Logf("NO NETWORK NAMESPACE CAN BE MADE (%v: %s): TESTED WITH A RELAY INSTEAD, WHICH ACKNOWLEDGES WHAT IT DROPS", err, out)
		line = newWire(t, to)
		return line, line.cut, line.mend
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	const here, there = "198.18.77.1", "198.18.77.2" // for such tests, RFC 2544
	in := "ip -n " + name + " "
	run(t, "ip link add "+name+" type veth peer name peer netns "+name)
	run(t, "ip addr add "+here+"/30 dev "+name, "ip link set "+name+" up")
	run(t, in+"addr add "+there+"/30 dev peer", in+"link set peer up")
	line = &wire{listener: listenIn(t, name, there+":0"), to: to, whole: make(chan struct{})}
	close(line.whole)
	go line.serve()
	t.Cleanup(func() { line.listener.Close() })
	return line, func() { run(t, in+"link set peer down") }, func() { run(t, in+"link set peer up") }
}

func run(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
}

// listenIn listens in a network namespace: a socket stays in the one that it was
// made in.
func listenIn(t *testing.T, name, address string) net.Listener {
	t.Helper()
	type result struct {
		listener net.Listener
		err      error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		ns, err := os.Open("/run/netns/" + name)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			made <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp", address)
		made <- result{l, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.listener
}
