package cut

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// line is a way to the store that can be cut without a word to anybody.
type line struct {
	address   string
	cut, heal func()
}

// newRelay is a line that, cut, takes bytes and connections and passes nothing on,
// and closes nothing.
func newRelay(t *testing.T, to string) line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gate := new(sync.RWMutex)
	relay(t, l, to, gate)
	return line{l.Addr().String(), gate.Lock, gate.Unlock}
}

// relay passes bytes on, both ways, while the gate is open.
func relay(t *testing.T, l net.Listener, to string, gate *sync.RWMutex) {
	t.Cleanup(func() { l.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			gate.RLock()
			//lint:ignore SA2001 what was read waits here while the line is cut
			gate.RUnlock()
			if err == nil {
				_, err = to.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				conn.Close()
				continue
			}
			go pass(server, conn)
			go pass(conn, server)
		}
	}()
}

// newNetwork returns a maker of lines over a network of their own that drops packets,
// by what is done in the namespace at its far end. Where none may be made, which
// takes root and iproute2, a relay stands for it, and the test says so.
func newNetwork(number int, cut, heal string) func(t *testing.T, to string) line {
	return func(t *testing.T, to string) line {
		t.Helper()
		name := fmt.Sprintf("cut%d-%d", os.Getpid(), number)
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			t.Logf("NO NETWORK NAMESPACE CAN BE MADE (%v: %s): TESTED WITH A RELAY INSTEAD, WHICH ACKNOWLEDGES WHAT IT DROPS", err, out)
			return newRelay(t, to)
		}
		t.Cleanup(func() { // the namespace lives for as long as TCP sends again in it, and the link with it
			exec.Command("ip", "link", "del", name).Run()
			exec.Command("ip", "netns", "del", name).Run()
		})
		// For such tests, RFC 2544, appendix C.2.2.
		here, there := fmt.Sprintf("198.19.%d.1", number), fmt.Sprintf("198.19.%d.2", number)
		in := "ip -n " + name + " "
		run(t, "ip link add "+name+" type veth peer name far netns "+name)
		run(t, "ip addr add "+here+"/30 dev "+name)
		run(t, "ip link set "+name+" up")
		run(t, in+"addr add "+there+"/30 dev far")
		run(t, in+"link set far up")
		l := listenIn(t, name, there+":0")
		relay(t, l, to, new(sync.RWMutex))
		return line{
			l.Addr().String(),
			func() { run(t, in+strings.ReplaceAll(cut, "HERE", here)) },
			func() { run(t, in+strings.ReplaceAll(heal, "HERE", here)) },
		}
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// listenIn listens in a network namespace: a socket stays in the one that it was
// made in.
func listenIn(t *testing.T, name, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	made := make(chan struct{})
	go func() {
		defer close(made)
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		var ns *os.File
		if ns, err = os.Open("/run/netns/" + name); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", address)
		}
	}()
	<-made
	if err != nil {
		t.Fatal(err)
	}
	return l
}
