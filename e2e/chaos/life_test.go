package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// life is a session, as its browser was told of it. Whatever an answer says about
// it has to agree with what earlier answers said.
type life struct {
	w       *world
	name    string
	cookie  string
	browser *gatewaytest.Browser   // with the cookie, whatever answers make of it
	ways    []*gatewaytest.Browser // the same, to each of the gateways

	mu    sync.Mutex
	grant string // the provider's name of it; "" before the API told
	// tried is when somebody first tried to end it so, unless it was in vain for
	// certain.
	tried map[string]time.Time
	ended time.Time // when somebody was told that it had ended
	how   string    // how it ended
	lost  bool      // it ended though nobody wanted it to
	open  int       // streams
}

func (w *world) newLife(name string, b *gatewaytest.Browser) *life {
	l := &life{w: w, name: name, cookie: b.Session(), browser: b.Steal(w.World, b.Session()), tried: map[string]time.Time{}}
	for _, g := range w.Gateways {
		l.ways = append(l.ways, l.browser.Via(g))
	}
	return l
}

// way is one of the ways to the gateways: by the balancer, or to one of them, ready
// or not.
func (l *life) way(random *rand.Rand) *gatewaytest.Browser {
	if n := random.IntN(1 + len(l.ways)); n > 0 {
		return l.ways[n-1]
	}
	return l.browser
}

// ask is a request and what came of it.
type ask struct {
	what, way  string
	begun, got time.Time
	answer     *gatewaytest.Answer
	err        error
	strict     bool // everything is well, nothing explains a failure
}

func (a *ask) String() string {
	if a.err != nil {
		return fmt.Sprintf("%s%s of %s, at %s: %v", a.what, a.way, clock(a.begun), clock(a.got), a.err)
	}
	return fmt.Sprintf("%s%s of %s, at %s: %s", a.what, a.way, clock(a.begun), clock(a.got), a.answer)
}

// call calls the API by way of a browser and judges the answer. It tells whether
// the answer was good: one that says that the session lives, or is over.
func (l *life) call(b *gatewaytest.Browser, strict bool) bool {
	a := &ask{what: "call", begun: time.Now(), strict: strict}
	if i := slices.Index(l.ways, b); i >= 0 {
		a.way = fmt.Sprintf(" by gateway %d", i)
	}
	a.answer, a.err = b.Call()
	a.got = time.Now()
	l.w.count.calls.Add(1)
	return l.judge(a)
}

// judge holds an answer to a request with the session's cookie against all that was
// told before.
func (l *life) judge(a *ask) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.err == nil && a.answer.Status != http.StatusOK && len(a.answer.Header.Values("Set-Cookie")) > 0 {
		l.w.wrong("%s: %s: an error that sets a cookie", l.name, a)
	}
	switch {
	case a.err == nil && a.answer.Status == http.StatusOK:
		l.lives(a)
		return true
	case a.err == nil && a.answer.Problem.Code == "session_ended":
		l.over(a)
		return true
	}
	l.w.excuse(l.name, a)
	return false
}

// lives judges an answer that only a live session gets.
func (l *life) lives(a *ask) {
	if !l.ended.IsZero() && a.begun.After(l.ended.Add(l.w.replicas)) {
		l.w.wrong("%s: %s, but it had ended at %s: %s", l.name, a, clock(l.ended), l.how)
	}
	grant := a.answer.Header.Get(gatewaytest.Grant)
	if l.grant == "" {
		l.grant = grant
	}
	if grant != "" && grant != l.grant {
		l.w.wrong("%s: %s with a token of %s, not of %s", l.name, a, grant, l.grant)
	}
}

// over judges an answer that says that the session is over.
func (l *life) over(a *ask) {
	reason := a.answer.Problem.Reason
	if l.ended.IsZero() {
		l.ended, l.how = a.got, reason
	}
	if at := l.tried[reason]; !at.IsZero() && at.Before(a.got) {
		return
	}
	if reason != "refresh_rejected" {
		l.w.wrong("%s: %s, and nobody ended it", l.name, a)
		return
	}
	if !l.lost { // the provider has to have a reason
		l.lost = true
		l.w.count.lost.Add(1)
	}
}

// end notes that somebody tries to end the session, for which each of the reasons
// may be told.
func (l *life) end(reasons ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, reason := range reasons {
		if l.tried[reason].IsZero() {
			l.tried[reason] = time.Now()
		}
	}
}

// acknowledged notes that somebody was told that the session has ended.
func (l *life) acknowledged(how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended.IsZero() {
		l.ended, l.how = time.Now(), how+" acknowledged"
	}
}

// survived notes that attempts to end the session were in vain.
func (l *life) survived() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended.IsZero() && l.tried["backchannel"].IsZero() {
		clear(l.tried)
	}
}

func (l *life) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero()
}

// excuses are what each failure can be explained by, while it lasts and a while
// after: connections are made again, pauses of patience run out. Some of these
// pauses last although everything is well.
var excuses = []struct {
	failure string
	is      func(*ask) bool
	kinds   []kind
	after   time.Duration
	pause   time.Duration // after a fault of the provider
}{
	{"the connection was cut", func(a *ask) bool { return a.err != nil }, gatewayKinds, 3 * time.Second, 0},
	{"no gateway was there, or ready", func(a *ask) bool {
		return a.answer.Header.Get(gatewaytest.BalancerError) != ""
	}, slices.Concat(gatewayKinds, storeKinds), 3 * time.Second, 0},
	{"the store does not answer", func(a *ask) bool {
		return a.answer.Problem.Code == "store_unavailable"
	}, slices.Concat(storeKinds, gatewayKinds), 5 * time.Second, 0},
	{"no new token can be had", func(a *ask) bool {
		return a.answer.Problem.Code == "refresh_unavailable"
	}, allKinds, 10 * time.Second, 6 * time.Second},
	{"the API refused a token that ran out on its way", func(a *ask) bool {
		return a.answer.Status == http.StatusUnauthorized && a.answer.Header.Get("X-Sessiongate") == ""
	}, allKinds, 10 * time.Second, 0},
	{"no login is possible", func(a *ask) bool {
		return a.what == "login" && a.answer.Status >= 500
	}, allKinds, 10 * time.Second, 0},
}

// excuse looks for what explains a failure.
func (w *world) excuse(name string, a *ask) {
	for _, e := range excuses {
		if !e.is(a) {
			continue
		}
		if a.answer != nil && a.answer.Status == http.StatusServiceUnavailable {
			w.count.unavailable.Add(1)
			w.wantRetryAfter(name, a)
		} else {
			w.count.cut.Add(1)
			w.sleep(20 * time.Millisecond) // or nothing else is asked
		}
		explained := w.history.explains(a.begun, a.got, standstill, stoodKinds...) ||
			e.pause > 0 && w.history.explains(a.begun, a.got, e.pause, providerKinds...) ||
			!a.strict && w.history.explains(a.begun, a.got, e.after, e.kinds...)
		if !explained {
			w.wrong("%s: %s, and nothing explains it", name, a)
		}
		return
	}
	w.wrong("%s: %s is no answer that anything explains", name, a)
}

func (w *world) wantRetryAfter(name string, a *ask) {
	if a.answer.Header.Get("Retry-After") == "" && a.answer.Header.Get(gatewaytest.BalancerError) == "" {
		w.wrong("%s: %s: 503 without Retry-After", name, a)
	}
}
