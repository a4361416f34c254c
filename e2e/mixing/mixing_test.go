// Package mixing holds the gateway against its worst mistake: that somebody gets
// what is another's. All users share all connections there are, on both
// sides, while their tokens are refreshed, their requests and answers break off,
// and upstreams close, refuse and answer too soon. The upstreams say whose token
// came with what, and everybody checks every byte.
package mixing

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

const (
	// proxies put requests of all users on connections of their own.
	proxies = 16
)

var binary string

func TestMain(m *testing.M) {
	var flags []string
	if os.Getenv("SESSIONGATE_MIXING") == "" {
		flags = append(flags, "-race") // ten times as slow
	}
	gatewaytest.Main(m, &binary, flags...)
}

// requests is how many are sent: SESSIONGATE_MIXING, or what a test of everyday
// has time for.
func requests(t *testing.T) int {
	t.Helper()
	text, given := os.LookupEnv("SESSIONGATE_MIXING")
	if !given {
		return 3_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SESSIONGATE_MIXING=%s is no number of requests", text)
	}
	return n
}

// PX-19, with sixty users, or with a thousand if there are as many requests. In other
// products a pooled client sent another user's token after a
// refresh, and token requests under way at once got each other's tokens.
func TestPX19NobodyGetsWhatIsAnothers(t *testing.T) {
	n := requests(t)
	w := newWorld(t, min(1000, n/50))
	began := time.Now()
	w.logIn()
	t.Logf("%d logins in %v", len(w.users), time.Since(began).Round(time.Millisecond))

	began = time.Now()
	var wg sync.WaitGroup
	for i, u := range w.users {
		wg.Go(func() { w.browse(u, n/2/len(w.users)+1, uint64(i)) })
	}
	for i := range proxies {
		wg.Go(func() { w.pipeline(n/2/proxies+1, uint64(i)) })
	}
	wg.Wait()
	w.everybodyAtOnce()
	for end := time.Now().Add(patience); w.provider.Stats().Refreshed < len(w.users) && time.Now().Before(end); {
		w.everybodyAtOnce() // a quick machine was done before the first tokens expired
	}
	took := time.Since(began)

	stats := w.provider.Stats()
	t.Logf("%d requests in %v, %v", w.count.total(), took.Round(time.Millisecond), &w.count)
	t.Logf("%d refreshes, %d reuses, %d retries with another token", stats.Refreshed, len(stats.Reuses), w.retries.Load())
	t.Run("CVE-2024-51987 no token of another user after a refresh", func(t *testing.T) {
		w.none(t, "user")
		if stats.Refreshed < len(w.users) || w.retries.Load() == 0 {
			t.Errorf("%d refreshes of %d sessions and %d retries prove nothing", stats.Refreshed, len(w.users), w.retries.Load())
		}
	})
	t.Run("CVE-2025-26620 and CVE-2026-40155 no token of another app, and none refreshed twice", func(t *testing.T) {
		w.none(t, "app")
		if len(stats.Reuses) > 0 {
			t.Errorf("reused: %v", stats.Reuses)
		}
	})
	t.Run("PX-19 no answer, trailer, hint or frame of another request", func(t *testing.T) { w.none(t, "answer") })
	t.Run("PX-19 no request of another in front of an upstream", func(t *testing.T) { w.none(t, "request") })
	t.Run("nothing else is wrong", func(t *testing.T) { w.none(t, "failure") })
	t.Run("everything took place", w.count.complete)
}

// world is the gateway, and all that is around it.
type world struct {
	t        *testing.T
	provider *devprovider.Provider
	gateway  *gatewaytest.Gateway
	address  string // the gateway's
	apps     []*app
	users    []*user
	clients  clients
	count    counts
	retries  atomic.Int64 // with another token, of requests whose token an upstream refused

	mu    sync.Mutex // guards wrong
	wrong map[string][]string
}

// app is one of two apps that the users log in to.
type app struct{ id, host, origin string }

// user is somebody's session with an app.
type user struct {
	*app
	sub     string
	address string // the browser's, as the proxies in front of the gateway say
	cookie  string
}

// report notes what must not be.
func (w *world) report(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong[kind] = append(w.wrong[kind], fmt.Sprintf(format, args...))
}

func (w *world) none(t *testing.T, kind string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, text := range w.wrong[kind] {
		if i == 10 {
			t.Errorf("and %d more", len(w.wrong[kind])-i)
			break
		}
		t.Error(text)
	}
}

// newWorld has users of one app each, and every tenth of both apps, which have tokens
// of their own.
func newWorld(t *testing.T, users int) *world {
	t.Helper()
	w := &world{t: t, wrong: map[string][]string{}}
	w.address = gatewaytest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(w.address)
	for _, id := range []string{"shop", "desk"} {
		host := net.JoinHostPort(id+".localhost", port)
		w.apps = append(w.apps, &app{id: id, host: host, origin: "https://" + host})
	}
	for i := range users + users/10 {
		address := fmt.Sprintf("198.%d.%d.%d", 18+i%2, i/250, 1+i%250)
		if i < users {
			w.users = append(w.users, &user{app: w.apps[i%2], sub: fmt.Sprintf("user-%d", i), address: address})
			continue
		}
		first := w.users[i-users]
		w.users = append(w.users, &user{app: w.apps[(i+1)%2], sub: first.sub, address: address})
	}
	certificate := newCertificate(t, "shop.localhost", "desk.localhost", "localhost")
	w.clients = newClients(w.address, certificate)
	issuer := w.newProvider()
	routes := w.newUpstreams(certificate)
	var apps []any
	for _, a := range w.apps {
		apps = append(apps, map[string]any{
			"origin": a.origin, "routes": routes,
			"oidc": map[string]any{"issuer": issuer, "client_id": a.id, "client_secret": clientSecret, "timeout": patience.String()},
		})
	}
	w.gateway = gatewaytest.Install(t, binary, map[string]any{
		"listen": w.address, "apps": apps,
		"tls":             map[string]any{"cert": certificate.file, "key": certificate.keyFile},
		"trusted_proxies": []string{"127.0.0.0/8"},
		"log":             map[string]any{"level": "warn"},
	})
	w.gateway.Start()
	t.Cleanup(w.clients.close)
	return w
}

const clientSecret = "a client secret, of a test"

// newProvider starts a provider that rotates refresh tokens and takes none twice.
func (w *world) newProvider() (issuer string) {
	address := gatewaytest.FreeAddress(w.t)
	issuer = "http://" + address
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	// Every session refreshes every few seconds; a thousand leave no time for more.
	ttl := 5*time.Second + time.Duration(len(w.users))*10*time.Millisecond
	config := devprovider.Config{Issuer: issuer, AccessTokenTTL: ttl, Key: key}
	for _, a := range w.apps {
		config.Clients = append(config.Clients, devprovider.Client{ID: a.id, Secret: clientSecret, RedirectURIs: []string{a.origin + "/bff/callback"}})
	}
	for _, u := range w.users {
		config.Users = append(config.Users, devprovider.User{Sub: u.sub})
	}
	if w.provider, err = devprovider.New(config); err != nil {
		w.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: w.provider}
	go server.Serve(listener)
	w.t.Cleanup(func() { server.Close() })
	return issuer
}
