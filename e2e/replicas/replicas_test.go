// Package replicas runs several gateways on one real redis-server and counts what
// the provider and the server are asked.
package replicas

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

var binary string

func TestMain(m *testing.M) {
	gatewaytest.Main(m, &binary)
}

// full tells whether the long forms are asked for: SESSIONGATE_REPLICAS=full.
func full() bool { return os.Getenv("SESSIONGATE_REPLICAS") == "full" }

const (
	replicas = 3
	// liveness is session.store.redis.liveness: its default.
	liveness = time.Second
	// busy is how much later than promised things may be seen on a machine that has
	// other things to do.
	busy = time.Second
)

// world is several gateways with people who are logged in.
type world struct {
	*gatewaytest.World
	redis  *gatewaytest.Redis
	people []*gatewaytest.Browser
}

func newWorld(t *testing.T, people int, o gatewaytest.Options) *world {
	t.Helper()
	w := &world{redis: gatewaytest.NewRedis(t)}
	for i := range people {
		o.Users = append(o.Users, devprovider.User{Sub: fmt.Sprintf("user-%d", i), Email: fmt.Sprintf("user-%d@example.com", i)})
	}
	o.Store, o.Gateways = w.redis.Store(nil), replicas
	w.World = gatewaytest.NewWorld(t, binary, o)
	w.Start()
	for _, u := range o.Users {
		b := w.NewBrowser()
		if _, err := b.Login(u.Sub); err != nil {
			t.Fatal(err)
		}
		w.people = append(w.people, b)
	}
	return w
}

// answers are how long requests waited, and what those were told that failed.
type answers struct {
	mu     sync.Mutex // guards what follows
	waited []time.Duration
	failed []string
}

// burst has everybody call the API by every gateway, so many times at once.
func (w *world) burst(each int, all *answers) {
	var calls sync.WaitGroup
	for _, b := range w.people {
		for _, g := range w.Gateways {
			via := b.Via(g)
			for range each {
				calls.Go(func() {
					begun := time.Now()
					answer, err := via.Call()
					all.add(time.Since(begun), answer, err)
				})
			}
		}
	}
	calls.Wait()
}

func (a *answers) add(waited time.Duration, answer *gatewaytest.Answer, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waited = append(a.waited, waited)
	switch {
	case err != nil:
		a.failed = append(a.failed, err.Error())
	case answer.Status != http.StatusOK:
		a.failed = append(a.failed, answer.String())
	}
}

func (a *answers) String() string {
	slices.Sort(a.waited)
	n := len(a.waited)
	return fmt.Sprintf("%d requests, %d failed; half waited up to %v, 99 of 100 up to %v, the last %v", n, len(a.failed),
		a.waited[n/2].Round(time.Millisecond), a.waited[n*99/100].Round(time.Millisecond), a.waited[n-1].Round(time.Millisecond))
}

// RF-05: whatever the number of replicas and of requests at once, an expiry is one
// token call, at a provider that ends everything when it sees a refresh token
// twice.
func TestRF05OneRefreshPerExpiry(t *testing.T) {
	for _, row := range []struct {
		name                string
		delay               time.Duration // of the provider
		people, each        int
		expiries, everydays int // of each person, in the long form and in the short
	}{
		{"the provider answers at once", 0, 4, 100, 50, 2},
		{"the provider takes a second", time.Second, 1, 100, 20, 2},
		{"the provider takes five seconds", 5 * time.Second, 1, 100, 10, 1},
		{"the provider takes fifteen seconds", 15 * time.Second, 1, 100, 5, 0},
	} {
		expiries := row.everydays
		if full() {
			expiries = row.expiries
		}
		if expiries == 0 {
			continue // of the long form only
		}
		t.Run(row.name, func(t *testing.T) {
			ttl := 3*time.Second + row.delay // a token's life begins when it is asked for
			w := newWorld(t, row.people, gatewaytest.Options{TokenTTL: ttl, OIDC: map[string]any{"timeout": "18s"}})
			if row.delay > 0 {
				w.Provider.Fail(devprovider.Fault{Delay: row.delay}, devprovider.Refresh)
			}
			all, more := &answers{}, 0
			for range expiries {
				time.Sleep(ttl + 100*time.Millisecond) // whatever token there is runs out
				before, begun := w.Provider.Stats().Refreshed, time.Now()
				w.burst(row.each, all)
				calls := w.Provider.Stats().Refreshed - before - len(w.people)
				// A busy machine may be at it until the new tokens run out, too.
				if calls < 0 || calls > 0 && time.Since(begun) < ttl*3/4 {
					t.Errorf("%d token calls for the expiries of %d people", calls+len(w.people), len(w.people))
				}
				more += calls
			}
			stats := w.Provider.Stats()
			t.Logf("%d expiries, %d token calls, %d reuses; %v", expiries*len(w.people), stats.Requests[devprovider.Refresh], len(stats.Reuses), all)
			if len(all.failed) > 0 {
				t.Errorf("%d requests failed, the first: %s", len(all.failed), all.failed[0])
			}
			if len(stats.Reuses) > 0 {
				t.Errorf("the provider saw %d reuses", len(stats.Reuses))
			}
			if asked := stats.Requests[devprovider.Refresh]; asked != expiries*len(w.people)+more {
				t.Errorf("%d token calls, of which %d succeeded", asked, expiries*len(w.people)+more)
			}
		})
	}
}

// A request of a session in memory asks the server nothing; uses are written once
// in a while, and probes whatever is served.
func TestARequestCostsNoRoundTrip(t *testing.T) {
	w := newWorld(t, 1, gatewaytest.Options{})
	all := &answers{}
	w.burst(1, all) // opens the session everywhere
	before := w.commands(t)
	const each = 300
	begun := time.Now()
	w.burst(each, all)
	took := time.Since(begun)
	if len(all.failed) > 0 {
		t.Fatalf("%d requests failed, the first: %s", len(all.failed), all.failed[0])
	}
	total := 0
	for name, n := range w.commands(t) {
		// Probes: four in a second of each gateway, of at most four commands.
		if n -= before[name]; n > 0 {
			t.Logf("%s: %d", name, n)
			total += n
		}
	}
	most := replicas*4*4*int(took/time.Second+2) + 30
	t.Logf("%d commands of three gateways during %d requests and %v", total, replicas*each, took.Round(time.Millisecond))
	if total > most {
		t.Errorf("the server was asked %d times, want the probes only, %d at most", total, most)
	}
}

// commands is how often the server was asked what, so far.
func (w *world) commands(t *testing.T) map[string]int {
	t.Helper()
	conn, err := net.Dial("tcp", w.redis.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "INFO commandstats\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	head, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
	if err != nil {
		t.Fatalf("INFO: %q", head)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		n, _, _ := strings.Cut(rest, ",")
		if counts[name], err = strconv.Atoi(n); err != nil {
			t.Fatalf("INFO: %q", line)
		}
	}
	return counts
}

// wantCall wants an answer of the API, or a problem of the gateway's, and that a
// failure leaves the cookie alone.
func wantCall(t *testing.T, b *gatewaytest.Browser, status int, code string) {
	t.Helper()
	answer, err := b.Call()
	if err != nil || answer.Status != status || answer.Problem.Code != code {
		t.Errorf("call: %v, %v, want %d %s", answer, err, status, code)
	}
	if answer != nil && status != http.StatusUnauthorized && len(answer.Header["Set-Cookie"]) > 0 {
		t.Error("the answer touches the cookie")
	}
}

// awaitCall calls until the answer is as wanted.
func awaitCall(t *testing.T, b *gatewaytest.Browser, status int, code string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answer, err := b.Call()
		if err == nil && answer.Status == status && answer.Problem.Code == code {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("answer: %v, %v, want %d %s", answer, err, status, code)
		}
	}
}
