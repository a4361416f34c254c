package replicas

import (
	"encoding/json"
	"net"
	"os"
	"sync"
	"testing"

	"sessiongate/e2e/gatewaytest"
)

// wire is the way from one gateway to its redis-server. Cut, it loses what is sent
// and closes nothing, as a network does that drops packets.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex // guards what follows
	whole chan struct{}
	conns []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: to, whole: make(chan struct{})}
	close(w.whole)
	go w.serve()
	t.Cleanup(func() {
		l.Close()
		w.mend()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.conns {
			c.Close()
		}
	})
	return w
}

func (w *wire) serve() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.relay(conn)
	}
}

func (w *wire) relay(conn net.Conn) {
	w.wait()
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		conn.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, conn, server)
	w.mu.Unlock()
	go w.pass(server, conn)
	w.pass(conn, server)
}

// pass passes bytes on while the wire is whole, and the end of them.
func (w *wire) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait waits until the wire is whole.
func (w *wire) wait() {
	w.mu.Lock()
	whole := w.whole
	w.mu.Unlock()
	<-whole
}

// cut cuts the wire. What is under way arrives when it is whole again, as what TCP
// sends again does.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = make(chan struct{})
}

// mend makes the wire whole, whether it was cut or not.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.whole:
	default:
		close(w.whole)
	}
}

// reconfigure changes the configuration of a gateway that is not running.
func reconfigure(t *testing.T, g *gatewaytest.Gateway, change func(config map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(g.Config())
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	change(config)
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.Config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// reach has a gateway find its redis-server at another address.
func reach(t *testing.T, g *gatewaytest.Gateway, address string, more map[string]any) {
	t.Helper()
	reconfigure(t, g, func(config map[string]any) {
		redis := config["session"].(map[string]any)["store"].(map[string]any)["redis"].(map[string]any)
		redis["addresses"] = []string{address}
		for key, value := range more {
			redis[key] = value
		}
	})
}

// wired puts a wire before a gateway of a world that is not started.
func wired(t *testing.T, g *gatewaytest.Gateway, r *gatewaytest.Redis) *wire {
	t.Helper()
	w := newWire(t, r.Address())
	reach(t, g, w.listener.Addr().String(), nil)
	return w
}
