package chaos

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// world is what is tested, with all that is around it and everybody who uses it.
type world struct {
	*gatewaytest.World
	t       *testing.T
	store   *gatewaytest.Redis // nil: bbolt
	people  []*person
	history history
	count   counts
	// replicas is how long a session may live on at other gateways than the one that
	// told its end.
	replicas time.Duration

	over    context.Context // the run
	working context.Context // the round
	streams sync.WaitGroup

	mistakes atomic.Int64
}

const (
	// tokenTimeout is oidc.timeout. A lease lasts for five seconds longer.
	tokenTimeout = 3 * time.Second
	// liveness is session.store.redis.liveness: its default.
	liveness = time.Second
)

// setting is what the scenarios differ by.
type setting struct {
	gateways int
	redis    bool
	people   int
	tokenTTL time.Duration
	config   map[string]any // more keys of the configuration

	tokenTimeout time.Duration // oidc.timeout; 0: tokenTimeout
}

func newWorld(t *testing.T, s setting, seed uint64) *world {
	t.Helper()
	w := &world{t: t}
	options := gatewaytest.Options{
		TokenTTL: s.tokenTTL,
		OIDC:     map[string]any{"timeout": cmp.Or(s.tokenTimeout, tokenTimeout).String()},
		Config:   map[string]any{"log": map[string]any{"level": "info"}},
		Gateways: s.gateways,
		Relay:    true,
	}
	url := upstream(t)
	for _, path := range []string{"/stream/", "/other/"} {
		options.Routes = append(options.Routes, map[string]any{"path": path, "upstream": url})
	}
	for key, value := range s.config {
		options.Config[key] = value
	}
	if s.redis {
		w.store = gatewaytest.NewRedis(t)
		options.Store = w.store.Store(nil)
		w.replicas = liveness + 250*time.Millisecond
	}
	for i := range s.people {
		options.Users = append(options.Users, devprovider.User{Sub: fmt.Sprintf("person-%d", i)})
	}
	options.Client = func(c *devprovider.Client) {
		c.BackChannelLogoutURI = c.RedirectURIs[0][:len(c.RedirectURIs[0])-len("callback")] + "backchannel"
	}
	w.World = gatewaytest.NewWorld(t, binary, options)
	for i, u := range options.Users {
		w.people = append(w.people, &person{w: w, name: u.Sub, random: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	var cancel context.CancelFunc
	w.over, cancel = context.WithCancel(context.Background())
	w.working = w.over
	t.Cleanup(func() {
		cancel()
		w.streams.Wait()
	})
	w.Start()
	w.streams.Go(w.watchMachine)
	return w
}

// standstill is how long nothing may go on before that explains a failure: half of
// what a gateway gives its store.
const standstill = liveness / 2

// watchMachine notes when the machine, or the store that nobody treats badly,
// stands still: fsync on a busy disk may take seconds.
func (w *world) watchMachine() {
	for w.over.Err() == nil {
		begun := time.Now()
		time.Sleep(50 * time.Millisecond)
		if time.Since(begun) > 50*time.Millisecond+standstill {
			w.history.stood(machineStood, begun)
		}
		if w.store == nil {
			continue
		}
		begun = time.Now()
		if _, err := w.store.Say("SET", "canary", "1", "PX", "1000"); err == nil && time.Since(begun) > standstill {
			w.history.stood(storeStood, begun)
		}
	}
}

// upstream has streams that never end, and answers that take their time and tell
// how much was sent.
func upstream(t *testing.T) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/stream/", tick)
	mux.HandleFunc("/other/", func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		after, _ := time.ParseDuration(r.FormValue("after"))
		time.Sleep(after)
		fmt.Fprint(rw, n)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func tick(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/event-stream")
	ticks := time.NewTicker(200 * time.Millisecond)
	defer ticks.Stop()
	for {
		if _, err := io.WriteString(rw, ": tick\n\n"); err != nil {
			return
		}
		if http.NewResponseController(rw).Flush() != nil {
			return
		}
		select {
		case <-ticks.C:
		case <-r.Context().Done():
			return
		}
	}
}

// wrong notes what must not be. With it goes what happened before.
func (w *world) wrong(format string, args ...any) {
	n := w.mistakes.Add(1)
	if n > 20 {
		return
	}
	text := fmt.Sprintf(format, args...)
	if n == 1 {
		text += w.history.between(time.Now().Add(-20*time.Second), time.Now())
	}
	w.t.Error(text)
}

// sleep pauses for a while, or until the round is over.
func (w *world) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.working.Done():
	}
}

// everybody lets all people do something at once, and waits for them.
func (w *world) everybody(do func(*person)) {
	var all sync.WaitGroup
	for _, p := range w.people {
		all.Go(func() { do(p) })
	}
	all.Wait()
}

// musterPatience is how long after a fault everything may take to be well again:
// leases of the dead run out, pauses of patience end.
const musterPatience = 30 * time.Second

// muster looks, when nothing is treated badly any more, whether everything is as
// everybody was told.
func (w *world) muster() {
	w.everybody(func(p *person) { p.recover() })
	w.everybody(func(p *person) { p.check() })
}

// recover waits until every gateway gives good answers again.
func (p *person) recover() {
	lives := p.former[max(0, len(p.former)-3):]
	if n := len(p.former) - 3; n > 0 {
		lives = append([]*life{p.former[p.random.IntN(n)]}, lives...)
	}
	if p.life != nil {
		lives = append([]*life{p.life}, lives...)
	}
	for _, l := range lives {
		for _, b := range l.ways {
			for end := time.Now().Add(musterPatience); !l.call(b, false); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					p.w.wrong("%s: no good answer for %v after all was well", p.name, musterPatience)
					return
				}
			}
		}
	}
}

// check wants good answers from all gateways at once.
func (p *person) check() {
	if l := p.life; l != nil {
		var tabs sync.WaitGroup
		for _, b := range l.ways {
			tabs.Go(func() { l.call(b, true) })
		}
		tabs.Wait()
		l.survived()
	}
	for _, l := range p.former[max(0, len(p.former)-3):] {
		l.streamsAreOver()
	}
}

// streamsAreOver wants no stream to outlive its session.
func (l *life) streamsAreOver() {
	open := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.open
	}
	for end := time.Now().Add(streamPatience); open() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			l.w.wrong("%s: %d streams are open of a session that ended at %s: %s", l.name, open(), clock(l.ended), l.how)
			return
		}
	}
}

// account looks, when all is over, whether every loss was the one that can't be
// helped: the provider had rotated, and the answer was lost to a crash. Each one is
// seen by the provider, and was announced.
func (w *world) account() {
	w.t.Helper()
	events := w.Provider.Events(devprovider.Refresh)
	spent := map[string]spending{}  // by refresh token
	generations := map[string]int{} // of tokens, by grant
	for _, e := range events {
		if e.Status == http.StatusOK {
			generations[e.Family]++
			spent[e.Params.Get("refresh_token")] = spending{e.Time, generations[e.Family]}
		}
	}
	refreshed, reuses := w.Provider.Stats().Refreshed, 0
	reused := map[string]bool{}
	for _, e := range events {
		if !e.Reuse {
			continue
		}
		reuses++
		reused[e.Family] = true
		first := spent[e.Params.Get("refresh_token")]
		if !w.unavoidable(first.at) {
			w.wrong("%s was refreshed at %s and with the same token at %s, and nothing explains that the answer was lost%s",
				e.Family, clock(first.at), clock(e.Time), w.history.between(first.at.Add(-10*time.Second), e.Time))
		}
		// Of two requests that waited for a provider that stood still it may have answered the later.
		waited := w.history.explains(first.at, e.Time, time.Second, providerPause)
		if w.Used(e.Family) >= first.generation && !waited {
			w.wrong("%s was refreshed at %s and with the same token at %s, and the first answer was in use: it was not stored before%s",
				e.Family, clock(first.at), clock(e.Time), w.history.between(first.at.Add(-10*time.Second), e.Time))
		}
	}
	announced := 0
	for _, g := range w.Gateways {
		announced += g.Events("refresh_ambiguous")
	}
	for _, p := range w.people {
		for _, l := range append(p.former, p.life) {
			if l != nil && l.lost && !reused[l.grant] && (l.grant != "" || reuses == 0) {
				w.wrong("%s: a session (%s) was lost at %s, and the provider has no reason", p.name, l.grant, clock(l.ended))
			}
		}
	}
	c := &w.count
	w.t.Logf("%d calls, %d of them cut, %d answered 503; %d streams, the last ended %v after its session",
		c.calls.Load(), c.cut.Load(), c.unavailable.Load(), c.streams.Load(), time.Duration(c.latest.Load()).Round(time.Millisecond))
	w.t.Logf("%d logins and %d that failed; %d logouts, %d by the provider, %d times nobody knew",
		c.logins.Load(), c.loginsFailed.Load(), c.logouts.Load(), c.backchannels.Load(), c.unsure.Load())
	w.t.Logf("%d refreshes, %d refresh tokens sent twice that were spent, %d announced; %d sessions lost by that", refreshed, reuses, announced, c.lost.Load())
	for _, k := range allKinds {
		if n := w.history.count(k); n > 0 {
			w.t.Logf("%s: %d times", k, n)
		}
	}
	if reuses > announced {
		w.wrong("the provider saw %d reuses, only %d were announced", reuses, announced)
	}
	for _, g := range w.Gateways {
		log := g.Log()
		for _, bad := range []string{"DATA RACE", "panic"} {
			if i := bytes.Index(log, []byte(bad)); i >= 0 {
				w.wrong("a gateway's log has a %s: %s", bad, log[i:min(len(log), i+3000)])
			}
		}
	}
}

// spending is the first use of a refresh token: when it was, and which generation
// of access tokens it brought.
type spending struct {
	at         time.Time
	generation int
}

// unavoidable tells whether an answer of the provider can have been lost by what
// was done to provider or gateway. The store alone is no reason: it is waited for.
func (w *world) unavoidable(taken time.Time) bool {
	answer := taken.Add(tokenTimeout + time.Second)
	// While the store is away the answer is in the gateway's memory only.
	stored := w.history.until(taken, answer, storeKinds...).Add(time.Second)
	// What was sent to a provider that stood still arrives when it goes on.
	return w.history.explains(taken, stored, time.Second, gatewayKill, gatewayPause) ||
		w.history.explains(taken, answer, time.Second, providerKinds...)
}
