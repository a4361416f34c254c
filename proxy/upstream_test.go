package proxy

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// provider refreshes tokens and counts.
type provider struct {
	mu    sync.Mutex
	calls int
	fail  error
}

func (p *provider) Refresh(context.Context, string) (*oauth2.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.fail != nil {
		return nil, p.fail
	}
	return &oauth2.Token{AccessToken: "fresh-" + rand.Text(), RefreshToken: "rt-" + rand.Text(), Expiry: time.Now().Add(5 * time.Minute)}, nil
}

func (p *provider) Confirm(context.Context, string, string) error { return nil }
func (p *provider) Revoke(context.Context, string, string) error  { return nil }

func (p *provider) called() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

func (p *provider) failing(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// seen is a request as an upstream received it.
type seen struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// upstream records what reaches it. handle may answer; else 200 "ok".
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []seen
	handle http.HandlerFunc
}

func newUpstream(t testing.TB) *upstream {
	u := &upstream{}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	handle := u.handle
	u.mu.Unlock()
	s := seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), ""}
	if handle == nil {
		body, _ := io.ReadAll(r.Body)
		s.Body = string(body)
	}
	u.mu.Lock()
	u.seen = append(u.seen, s)
	u.mu.Unlock()
	if handle != nil {
		handle(w, r)
		return
	}
	io.WriteString(w, "ok")
}

func (u *upstream) answer(f http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle = f
}

func (u *upstream) requests() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seen(nil), u.seen...)
}

func (u *upstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = nil
}

// last is the one request since the last forget.
func (u *upstream) last(t testing.TB) seen {
	t.Helper()
	all := u.requests()
	if len(all) != 1 {
		t.Fatalf("the upstream saw %d requests, want 1", len(all))
	}
	return all[0]
}
