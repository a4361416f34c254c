package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// server is what several processes keep sessions in. It tells a process of the next
// change of what that process has read, and of nothing else, as Redis does.
type server struct {
	session.Store
	mu   sync.Mutex // guards read
	read map[session.Key]map[*peer]bool
}

// peer is a server as one process has it.
type peer struct {
	*server
	follower session.Follower
}

func newServer() *server {
	return &server{Store: newMemory(), read: map[session.Key]map[*peer]bool{}}
}

// process is another process on the server.
func (sv *server) process(b *bench) *bench {
	b.t.Helper()
	r := *b
	r.config.Store = &peer{server: sv}
	r.start()
	b.t.Cleanup(r.stop)
	return &r
}

func (p *peer) Follow(f session.Follower)           { p.follower = f }
func (p *peer) Trusted(session.Key, time.Time) bool { return true }
func (p *peer) Ahead() time.Duration                { return 0 }

func (p *peer) Load(ctx context.Context, key session.Key) (session.Record, error) {
	p.mu.Lock()
	if p.read[key] == nil {
		p.read[key] = map[*peer]bool{}
	}
	p.read[key][p] = true
	p.mu.Unlock()
	return p.Store.Load(ctx, key)
}

func (p *peer) Create(ctx context.Context, key session.Key, rec session.Record) error {
	defer p.changed(key)
	return p.Store.Create(ctx, key, rec)
}

func (p *peer) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	defer p.changed(key)
	return p.Store.Replace(ctx, key, version, data)
}

func (p *peer) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	defer p.changed(key)
	return p.Store.End(ctx, key, reason, c)
}

func (sv *server) changed(key session.Key) {
	sv.mu.Lock()
	readers := sv.read[key]
	delete(sv.read, key)
	sv.mu.Unlock()
	for p := range readers {
		p.follower.Changed(key)
	}
}

// What a process has in memory of a session is what it has read: a server tells of
// changes of nothing else. The process that made a session has written it only.
func TestAnEndElsewhereReachesWhoMadeTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		here, there := sv.process(one), sv.process(one)
		c := here.login()
		here.mustToken(c)
		if _, err := there.Logout(t.Context(), there.open(c)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		here.endedBy(c, session.Logout)
	})
}

// A login whose session cannot be read back gives the browser nothing.
func TestALoginThatIsNotReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		down := &hooked{Store: sv.Store}
		sv.Store = down
		here := sv.process(one)
		down.set(failing("load"))
		_, c, err := here.tryLogin()
		var unknown *session.StoreError
		if !errors.As(err, &unknown) || c != nil {
			t.Errorf("login: cookie %v, error = %v, want a StoreError and none", c != nil, err)
		}
	})
}
