package gatewaytest

import (
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// Relay is a process in front of a server: a provider whose processes die and
// stand still, and whose database does not. What a server did whose relay died
// stays done, and nobody hears of it.
type Relay struct {
	Process
	address string
}

// The environment of a process that is to be a relay.
const (
	relayFrom = "SESSIONGATE_TEST_RELAY_FROM"
	relayTo   = "SESSIONGATE_TEST_RELAY_TO"
)

// ServeRelay makes this process a relay, and does not return, if it was started to
// be one. TestMain calls it first in tests that want relays.
func ServeRelay() {
	from := os.Getenv(relayFrom)
	if from == "" {
		return
	}
	listener, err := net.Listen("tcp", from)
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		listener, err = net.Listen("tcp", from)
	}
	if err != nil {
		panic(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go relay(conn, os.Getenv(relayTo))
	}
}

// relay passes bytes on, both ways, until one side is done.
func relay(conn net.Conn, to string) {
	defer conn.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var either sync.Once
	done := make(chan struct{})
	pass := func(to, from net.Conn) {
		io.Copy(to, from)
		either.Do(func() { close(done) })
	}
	go pass(server, conn)
	go pass(conn, server)
	<-done
}

// newRelay starts a relay in front of an address.
func newRelay(t testing.TB, to string) *Relay {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{address: FreeAddress(t)}
	r.Process = newProcess(t, "relay", func() *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), relayFrom+"="+r.address, relayTo+"="+to)
		cmd.Stderr = os.Stderr
		return cmd
	})
	t.Cleanup(func() {
		if r.Running() {
			r.Kill()
		}
	})
	r.Start()
	return r
}

// Address is where the relay listens.
func (r *Relay) Address() string { return r.address }

// Start runs the relay, also again, and waits until it listens.
func (r *Relay) Start() {
	r.t.Helper()
	r.launch()
	for end := time.Now().Add(stopPatience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("the relay does not listen: %v", err)
		}
	}
}
