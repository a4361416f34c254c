package redisstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

// trio is three stores of one server, as those of three replicas.
func trio(t *testing.T, sv *server) []*Store {
	t.Helper()
	first := openWith(t, Options{Addresses: []string{sv.addr()}, Liveness: time.Second})
	all := []*Store{first}
	for range 2 {
		all = append(all, openWith(t, Options{Addresses: []string{sv.addr()}, Prefix: first.opts.Prefix, Liveness: time.Second}))
	}
	return all
}

// commandsOf are those a server was sent since its statistics were reset, by name,
// but for those of scripts and of probes.
func commandsOf(t *testing.T, sv *server) map[string]int {
	t.Helper()
	c := sv.client(t)
	stats, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for line := range strings.Lines(stats) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if ok && slices.Contains([]string{"evalsha", "eval", "get", "zscore"}, name) {
			calls, _, _ := strings.Cut(strings.TrimPrefix(rest, "calls="), ",")
			for _, digit := range calls {
				all[name] = 10*all[name] + int(digit-'0')
			}
		}
	}
	return all
}

// A lease that is released is taken by whoever waits at once, and not after a pause.
func TestLeaseIsHandedOver(t *testing.T) {
	stores := trio(t, launch(t))
	var taken []time.Duration
	for range 20 {
		key := random[session.Key]()
		lease, err := stores[0].Acquire(t.Context(), key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan time.Time, 2)
		var wg sync.WaitGroup
		for _, s := range stores[1:] {
			wg.Go(func() {
				l, err := s.Acquire(t.Context(), key, time.Minute)
				got <- time.Now()
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				s.Release(t.Context(), l)
			})
		}
		for _, s := range stores[1:] {
			eventually(t, "wait", func() error { return s.waitsFor(key) })
		}
		begun := time.Now()
		if err := stores[0].Release(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, (<-got).Sub(begun), (<-got).Sub(begun))
		wg.Wait()
	}
	slices.Sort(taken)
	t.Logf("handed over after %v in the median, %v at most", taken[len(taken)/2], taken[len(taken)-1])
	if median := taken[len(taken)/2]; median > time.Second {
		t.Errorf("a lease is handed over after %v", median)
	}
}

// waitsFor tells whether somebody waits for a lease here.
func (s *Store) waitsFor(key session.Key) error {
	w := &s.following.waiters
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.of[s.layout.of(key).lease(key)]) == 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// Who waits does not poll.
func TestWaitingForALeaseCostsLittle(t *testing.T) {
	t.Parallel()
	sv := launch(t)
	stores := trio(t, sv)
	key := random[session.Key]()
	lease, err := stores[0].Acquire(t.Context(), key, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	sv.must(t, "CONFIG", "RESETSTAT")
	var wg sync.WaitGroup
	for _, s := range stores[1:] {
		wg.Go(func() {
			l, err := s.Acquire(t.Context(), key, time.Minute)
			if err != nil {
				t.Errorf("Acquire: %v", err)
				return
			}
			s.Release(t.Context(), l)
		})
	}
	time.Sleep(2500 * time.Millisecond)
	if err := stores[0].Renew(t.Context(), lease, 15*time.Second); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	sent := commandsOf(t, sv)
	t.Logf("two that waited for 5 s, with one renewal: %v", sent)
	// Each: two attempts and two reads, of which scripts do some more; one renewal.
	if sent["evalsha"]+sent["eval"] > 8 || sent["get"] > 8 {
		t.Errorf("two that wait for 5 s sent %v", sent)
	}
	if err := stores[0].Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

// Whoever waits is woken by what it cannot have been told of, too.
func TestLeaseThatIsReleasedWhileTheConnectionIsLost(t *testing.T) {
	sv := launch(t)
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Liveness: 100 * time.Millisecond})
	key := random[session.Key]()
	if _, err := s.Acquire(t.Context(), key, time.Hour); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		_, err := s.Acquire(ctx, key, time.Minute)
		// Woken, it may ask by the other connection that is lost, before anybody knows
		// that, and again while it is made anew.
		for err != nil && ctx.Err() == nil {
			_, err = s.Acquire(ctx, key, time.Minute)
		}
		done <- err
	}()
	c := sv.client(t)
	eventually(t, "wait", func() error {
		stats, err := c.Do(t.Context(), c.B().Info().Section("stats").Build()).ToString()
		if err == nil && !strings.Contains(stats, "tracking_total_keys:1\r") {
			err = errors.New("the lease's change would not be told")
		}
		return err
	})
	// The key goes without a word, and then the connection that would have told.
	name := s.layout.of(key).lease(key)
	one, release := c.Dedicate()
	defer release()
	b := one.B()
	for _, answer := range one.DoMulti(t.Context(),
		b.Arbitrary("MULTI").Build(), b.Arbitrary("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Build(),
		b.Del().Key(name).Build(), b.Arbitrary("EXEC").Build()) {
		if err := answer.Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Acquire: %v", err)
	}
}

// lostConn loses the answer to the first attempt to take a lease, and then the
// first one to give it back.
type lostConn struct {
	net.Conn
	lose *atomic.Int32 // how much of it was lost
	gone atomic.Bool   // what comes is not heard any more
}

func (c *lostConn) Write(b []byte) (int, error) {
	switch {
	case bytes.Contains(b, []byte(acquireScript.hash)) && c.lose.CompareAndSwap(0, 1):
		c.gone.Store(true)
	case bytes.Contains(b, []byte(releaseScript.hash)) && c.lose.CompareAndSwap(1, 2):
		return 0, io.EOF
	}
	return c.Conn.Write(b)
}

func (c *lostConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.gone.Load() {
		return 0, io.EOF // it was carried out
	}
	return n, err
}

// A server that is restarted breaks connections one after the other. Nobody waits
// then for a lease that nobody has.
func TestLeaseWhoseAnswerWasLostIsGivenBack(t *testing.T) {
	var lose atomic.Int32
	prefix := rand.Text() + ":"
	s := openWith(t, Options{
		Addresses: []string{shared.addr()}, Prefix: prefix, Liveness: time.Hour,
		wrap: func(conn net.Conn) net.Conn { return &lostConn{Conn: conn, lose: &lose} },
	})
	other := openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: prefix})
	key := random[session.Key]()
	for _, s := range []*Store{s, other} { // the scripts are known
		lose.Store(-1)
		lease, err := s.Acquire(t.Context(), key, time.Minute)
		if err := errors.Join(err, s.Release(t.Context(), lease)); err != nil {
			t.Fatal(err)
		}
	}
	lose.Store(0)
	_, err := s.Acquire(t.Context(), key, time.Hour)
	wantUnknown(t, "Acquire", err)
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	lease, err := other.Acquire(soon, key, time.Minute)
	if err != nil {
		t.Fatalf("Acquire of what nobody has: %v", err)
	}
	if lose.Load() != 2 {
		t.Errorf("lost %d answers, want 2", lose.Load())
	}
	if err := other.Release(t.Context(), lease); err != nil {
		t.Error(err)
	}
}
