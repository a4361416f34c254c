package session_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// doubtful is a peer that says for how long it may be believed.
type doubtful struct {
	*peer
	until atomic.Int64 // Unix nanoseconds; 0: always
	loads atomic.Int64
	ahead time.Duration
}

func (d *doubtful) Trusted(_ session.Key, now time.Time) bool {
	until := d.until.Load()
	return until == 0 || now.UnixNano() < until
}

func (d *doubtful) Load(ctx context.Context, key session.Key) (session.Record, error) {
	d.loads.Add(1)
	return d.peer.Load(ctx, key)
}

func (d *doubtful) Ahead() time.Duration { return d.ahead }

// doubting is a process whose trust in the server a test decides on.
func (sv *server) doubting(b *bench, ahead time.Duration) (*bench, *doubtful) {
	b.t.Helper()
	d := &doubtful{peer: &peer{server: sv}, ahead: ahead}
	r := *b
	r.config.Store = d
	r.start()
	b.t.Cleanup(r.stop)
	return &r, d
}

// ST-09: what is in memory is believed for as long as the server would have told of
// a change; then the server is asked at each request, and its silence is no logout.
func TestST09MemoryIsBelievedWhileTheServerTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv, down := hookedServer()
		b, d := sv.doubting(one, 0)
		c := b.login()
		b.mustToken(c)
		asked := func(n int64) {
			t.Helper()
			before := d.loads.Load()
			for range 3 {
				b.mustToken(c)
			}
			if got := d.loads.Load() - before; got != n {
				t.Errorf("three requests read the session %d times, want %d", got, n)
			}
		}
		asked(0)
		d.until.Store(time.Now().UnixNano())
		asked(3)
		down.set(failing("load"))
		for range 3 {
			_, err := b.Session(request(c))
			var unknown *session.StoreError
			if !errors.As(err, &unknown) {
				t.Errorf("a server that does not answer: %v, want a StoreError", err)
			}
		}
		down.set(nil)
		d.until.Store(0)
		b.mustToken(c)
		asked(0)
	})
}

// Word of an end was lost with a connection, and the next one is trusted: what is in
// memory must not outlive the doubt.
func TestDoubtEmptiesTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		b, d := sv.doubting(one, 0)
		c := b.login()
		watched := make(chan session.Reason, 1)
		stop, err := b.open(c).Watch(t.Context(), session.Watcher{Ended: func(r session.Reason) { watched <- r }})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		if _, err := sv.Store.End(t.Context(), b.open(c).Key(), session.Revoked, session.Condition{}); err != nil {
			t.Fatal(err)
		}
		b.mustToken(c) // nobody has told
		d.follower.Doubt()
		b.endedBy(c, session.Revoked)
		if got := <-watched; got != session.Revoked {
			t.Errorf("a stream is told %s, want %s", got, session.Revoked)
		}
	})
}

// Word comes between two looks of one request, when the process stood still.
func TestARequestThatStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		d := &standing{peer: &peer{server: sv}}
		b := *one
		b.config.Store = d
		b.start()
		t.Cleanup(b.stop)
		c := b.login()
		key := b.open(c).Key()
		d.meanwhile = func() {
			if _, err := sv.Store.End(t.Context(), key, session.Revoked, session.Condition{}); err != nil {
				t.Error(err)
			}
			d.follower.Doubt()
		}
		b.endedBy(c, session.Revoked)
	})
}

// standing is trusted, after something else has happened.
type standing struct {
	*peer
	meanwhile func()
}

func (s *standing) Trusted(session.Key, time.Time) bool {
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		f()
	}
	return true
}

// Streams go on for half a minute longer than answers, and listeners for ever: they
// hear of nothing but the session.
func TestStreamsOfASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		b, d := sv.doubting(one, 0)
		c := b.login()
		told := make(chan time.Time, 2)
		watch := func(b *bench, c *http.Cookie, w session.Watcher) {
			w.Ended = func(r session.Reason) {
				if w.Listener || r != session.Unproven {
					t.Errorf("told %s, listener: %v", r, w.Listener)
				}
				told <- time.Now()
			}
			stop, err := b.open(c).Watch(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
		}
		watch(b, c, session.Watcher{})
		watch(b, c, session.Watcher{Listener: true})
		silent := time.Now()
		d.until.Store(silent.UnixNano())
		after := (<-told).Sub(silent)
		if after < 30*time.Second || after > 32*time.Second {
			t.Errorf("the stream ended after %v of silence, want half a minute", after)
		}
		time.Sleep(time.Minute)
		d.until.Store(0)
		b.mustToken(c) // nobody was logged out
	})
}

// Replicas whose clocks differ agree on a token's age, by the server's clock.
func TestSealedTimesAreToldByTheServersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		fast, _ := sv.doubting(one, 2*time.Minute)
		right, _ := sv.doubting(one, 0)
		c := fast.login()
		here, there := fast.open(c).View().TokenExpiresIn, right.open(c).View().TokenExpiresIn
		// The bubble has one clock: the same moment is two minutes later by a server that is two minutes behind.
		if here != tokenTTL || there != tokenTTL-2*time.Minute {
			t.Errorf("the token lasts for %v and %v, want %v and %v", here, there, tokenTTL, tokenTTL-2*time.Minute)
		}
	})
}
