package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

// copies keeps sessions as the manager does: what was read before a change is
// known never gets in after it.
type copies struct {
	mu    sync.Mutex // guards what follows
	has   map[session.Key]uint64
	fills map[session.Key][]*bool // stale or not, while they are read
	told  int
}

func (m *copies) Changed(key session.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told++
	delete(m.has, key)
	m.outdate(key)
}

func (m *copies) Doubt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.has)
	for key := range m.fills {
		m.outdate(key)
	}
}

func (m *copies) outdate(key session.Key) {
	for _, stale := range m.fills[key] {
		*stale = true
	}
	delete(m.fills, key)
}

func (m *copies) get(key session.Key) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	version, ok := m.has[key]
	return version, ok
}

// fill reads a session, and keeps it if it did not change meanwhile.
func (m *copies) fill(ctx context.Context, s *Store, key session.Key) {
	m.mu.Lock()
	stale := new(bool)
	m.fills[key] = append(m.fills[key], stale)
	m.mu.Unlock()
	rec, err := s.Load(ctx, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fills[key] = slices.DeleteFunc(m.fills[key], func(other *bool) bool { return other == stale })
	if err == nil && !*stale {
		m.has[key] = rec.Version
	}
}

// history is what was acknowledged of a session, and when.
type history struct {
	mu   sync.Mutex  // guards acks
	acks []time.Time // of version 2, 3 ..
}

func (h *history) ack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, time.Now())
}

// known is the version that was acknowledged before a time.
func (h *history) known(before time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, _ := slices.BinarySearchFunc(h.acks, before, time.Time.Compare)
	return uint64(n) + 1
}

// line is what connections of a store go through: they can be cut, and fall silent.
type line struct {
	mu     sync.Mutex // guards what follows
	conns  []*lineConn
	silent chan struct{} // closed when it is over; nil: it is not
}

type lineConn struct {
	net.Conn
	l *line
}

func (l *line) wrap(conn net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &lineConn{conn, l}
	l.conns = append(l.conns, c)
	return c
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.hold()
	return n, err
}

func (c *lineConn) Write(b []byte) (int, error) {
	c.l.hold()
	return c.Conn.Write(b)
}

// hold is the way of a packet.
func (l *line) hold() {
	l.mu.Lock()
	silent := l.silent
	l.mu.Unlock()
	if silent != nil {
		<-silent
	}
}

func (l *line) fallSilent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = make(chan struct{})
}

func (l *line) speak() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.silent)
	l.silent = nil
}

// last is the newest connection.
func (l *line) last() *lineConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[len(l.conns)-1]
}

// staysTrue has a store write and another follow it while something disturbs the
// other. What is trusted is never older than it may be.
func staysTrue(t *testing.T, writer, follower *Store, keys []session.Key, disturb func(over func() bool)) {
	t.Helper()
	m := &copies{has: map[session.Key]uint64{}, fills: map[session.Key][]*bool{}}
	follower.Follow(m)
	told := make([]history, len(keys))
	var wg sync.WaitGroup
	var over atomic.Bool
	var trusted, distrusted, aged atomic.Int64
	for i, key := range keys {
		wg.Go(func() {
			for version := uint64(1); !over.Load(); {
				err := writer.Replace(t.Context(), key, version, []byte("new"))
				if err != nil && !isAnswer(err) { // a slot on its way: it was done or not
					rec, err := writer.Load(t.Context(), key)
					if err != nil || rec.Version == version {
						continue
					}
				}
				version++
				told[i].ack()
				time.Sleep(rand.N(20 * time.Millisecond))
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for !over.Load() {
				i := rand.N(len(keys))
				now := time.Now()
				if !follower.Trusted(keys[i], now) {
					distrusted.Add(1)
					ctx, cancel := context.WithTimeout(t.Context(), follower.opts.Liveness)
					m.fill(ctx, follower, keys[i])
					cancel()
					continue
				}
				version, ok := m.get(keys[i])
				if !ok {
					m.fill(t.Context(), follower, keys[i])
					continue
				}
				trusted.Add(1)
				if least := told[i].known(now.Add(-follower.opts.Liveness)); version < least {
					t.Errorf("version %d is trusted %v after %d was acknowledged", version, follower.opts.Liveness, least)
					over.Store(true)
				}
				if version < told[i].known(now) {
					aged.Add(1)
				}
				time.Sleep(rand.N(time.Millisecond))
			}
		})
	}
	disturb(over.Load)
	over.Store(true)
	wg.Wait()
	writes := 0
	for i := range told {
		writes += len(told[i].acks)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.Logf("%d writes, %d told; %d times trusted (%d that were old), %d times not",
		writes, m.told, trusted.Load(), aged.Load(), distrusted.Load())
	if writes == 0 || m.told == 0 || trusted.Load() == 0 {
		t.Error("nothing was tested")
	}
}

// However a connection is lost, nothing that changed meanwhile is missed.
func TestTrustIsDeserved(t *testing.T) {
	t.Parallel()
	sv := launch(t)
	writer := openAt(t, sv)
	var l line
	const liveness = 100 * time.Millisecond
	follower := openWith(t, Options{
		Addresses: []string{sv.addr()}, Prefix: writer.opts.Prefix, Liveness: liveness, Timeout: time.Second, wrap: l.wrap,
	})
	var keys []session.Key
	for range 8 {
		keys = append(keys, create(t, writer, record()))
	}
	wantTrust(t, follower, keys[0])
	staysTrue(t, writer, follower, keys, func(over func() bool) {
		for begun := time.Now(); time.Since(begun) < 4*time.Second && !over(); time.Sleep(rand.N(liveness)) {
			switch c := l.last(); rand.N(4) {
			case 0:
				c.Close()
			case 1:
				sv.say("CLIENT", "KILL", "ADDR", c.LocalAddr().String())
			case 2: // packets are late
				l.fallSilent()
				time.Sleep(rand.N(4 * liveness))
				l.speak()
			case 3: // and lost
				l.fallSilent()
				time.Sleep(rand.N(4 * liveness))
				c.Close()
				l.speak()
			}
		}
	})
}

// What is moved to another node is told of there, or in doubt.
func TestTrustIsDeservedWhileSlotsMove(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir())
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("%x:", random[session.Key]())
	writer := openWith(t, Options{Addresses: []string{nodes[0].addr()}, Cluster: true, Prefix: prefix})
	const liveness = 200 * time.Millisecond
	var l line
	follower := openWith(t, Options{
		Addresses: []string{nodes[0].addr()}, Cluster: true, Prefix: prefix, Liveness: liveness, Timeout: time.Second, wrap: l.wrap,
	})
	var keys []session.Key
	for len(keys) < 8 {
		if key := random[session.Key](); writer.layout.number(key) == 7 {
			if err := writer.Create(t.Context(), key, record()); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
	}
	for range 90 { // more of the slot, so that it takes a while
		key := random[session.Key]()
		copy(key[:], keys[0][:2])
		if err := writer.Create(t.Context(), key, record()); err != nil {
			t.Fatal(err)
		}
	}
	m := newMover(t, nodes)
	staysTrue(t, writer, follower, keys, func(over func() bool) {
		for range 3 {
			m.move(int64(slot("7")), 30*time.Millisecond)
			time.Sleep(2 * liveness)
			if rand.N(3) == 0 {
				l.fallSilent()
				time.Sleep(rand.N(2 * liveness))
				l.speak()
			}
		}
	})
}

// A Cluster may move a slot at once, and tell of no key.
func TestSlotThatMovedIsInDoubt(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir())
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := openWith(t, Options{Addresses: []string{nodes[0].addr()}, Cluster: true, Liveness: 400 * time.Millisecond})
	e := follow(s)
	var key session.Key
	wantTrust(t, s, key)
	m := newMover(t, nodes)
	for range 3 {
		if _, err := s.Load(t.Context(), key); err != session.ErrAbsent {
			t.Fatalf("Load: %v", err)
		}
		doubts := e.doubts.Load()
		m.move(int64(slot("0")), 0)
		wantDoubt(t, e, doubts)
		wantTrust(t, s, key)
	}
}
