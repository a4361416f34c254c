package chaos

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// person is somebody who logs in, uses the app in several tabs, logs out, or is
// logged out by the provider.
type person struct {
	w      *world
	name   string
	random *rand.Rand

	life      *life     // nil: logged out
	former    []*life   // those that ended
	notBefore time.Time // a login that begins earlier is one that a logout at the provider means, too
}

// act does one thing.
func (p *person) act() {
	if p.life != nil && p.life.isOver() {
		p.former, p.life = append(p.former, p.life), nil
	}
	if p.life == nil {
		p.login()
		return
	}
	switch n := p.random.IntN(1000); {
	case n < 15:
		p.logout()
	case n < 22:
		p.loggedOut()
	case n < 70:
		p.listen()
	case n < 150:
		p.lookBack()
	case n < 250:
		p.w.sleep(time.Duration(p.random.IntN(1500)) * time.Millisecond)
	default:
		p.tabs()
	}
	p.w.sleep(time.Duration(p.random.IntN(100)) * time.Millisecond)
}

func (p *person) login() {
	if p.w.sleep(time.Until(p.notBefore)); time.Now().Before(p.notBefore) {
		return
	}
	b := p.w.NewBrowser()
	a := &ask{what: "login", begun: time.Now()}
	a.answer, a.err = b.Login(p.name)
	a.got = time.Now()
	if a.err == nil {
		p.w.count.logins.Add(1)
		p.life = p.w.newLife(p.name, b)
		p.life.call(p.life.browser, false)
		return
	}
	p.w.count.loginsFailed.Add(1)
	if errors.Is(a.err, gatewaytest.ErrNotLoggedIn) {
		a.err = nil // the answer tells
	}
	if !p.w.history.explains(a.begun, a.got, 10*time.Second, allKinds...) {
		p.w.wrong("%s: %s, and nothing explains it", p.name, a)
	}
	p.w.sleep(100 * time.Millisecond)
}

// tabs call the API, some at once.
func (p *person) tabs() {
	var tabs sync.WaitGroup
	for range 1 + p.random.IntN(4) {
		way := p.life.way(p.random)
		tabs.Go(func() { p.life.call(way, false) })
	}
	tabs.Wait()
}

// logout logs out while another tab is busy.
func (p *person) logout() {
	var tabs sync.WaitGroup
	tabs.Go(func() { p.life.call(p.life.browser, false) })
	p.life.end("logout")
	a := &ask{what: "logout", begun: time.Now()}
	a.answer, a.err = p.life.browser.Steal(p.w.World, p.life.cookie).Fetch(http.MethodPost, "/bff/logout")
	a.got = time.Now()
	if a.err == nil && a.answer.Status == http.StatusOK {
		p.life.acknowledged("logout")
		p.w.count.logouts.Add(1)
	} else {
		p.life.judge(a)
		p.w.count.unsure.Add(1)
	}
	tabs.Wait()
}

// loggedOut is logged out by the provider, which has told everybody or tries
// again.
func (p *person) loggedOut() {
	p.life.end("backchannel", "refresh_rejected") // its grant is revoked
	sent := p.w.Provider.Logout(p.name)
	for {
		p.notBefore = time.Now().Add(time.Second).Truncate(time.Second)
		if len(sent) == 1 && sent[0].Status == http.StatusOK {
			p.life.acknowledged("backchannel")
			p.w.count.backchannels.Add(1)
			return
		}
		p.w.count.unsure.Add(1)
		if p.w.working.Err() != nil || p.life.isOver() {
			return
		}
		p.w.sleep(200 * time.Millisecond)
		sent[0] = p.w.Provider.SendLogout(sent[0].ClientID, p.name, "")
	}
}

// lookBack looks whether a session that ended has stayed so.
func (p *person) lookBack() {
	if n := len(p.former); n > 0 {
		l := p.former[max(0, n-1-p.random.IntN(5))]
		l.call(l.way(p.random), false)
	}
}

// listen opens a stream, which has to last as long as the session, and no longer.
func (p *person) listen() {
	l := p.life
	l.mu.Lock()
	busy := l.open >= 2
	if !busy {
		l.open++
	}
	l.mu.Unlock()
	if busy {
		return
	}
	opened := make(chan struct{})
	p.w.streams.Go(func() { l.stream(opened) })
	<-opened
}

// stream reads a stream to its end. It closes opened when it knows whether there
// is one.
func (l *life) stream(opened chan struct{}) {
	tell := sync.OnceFunc(func() { close(opened) })
	defer tell()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
	}()
	a := &ask{what: "stream", begun: time.Now()}
	res, err := l.openStream()
	if err == nil {
		defer res.Body.Close()
		a.answer, err = gatewaytest.ReadHead(res)
	}
	a.got, a.err = time.Now(), err
	if l.judge(a); a.err != nil || a.answer.Status != http.StatusOK {
		return
	}
	l.w.count.streams.Add(1)
	tell()
	io.Copy(io.Discard, res.Body)
	l.streamEnded(time.Now())
}

func (l *life) openStream() (*http.Response, error) {
	req, err := http.NewRequestWithContext(l.w.over, http.MethodGet, l.w.Origin+"/stream/", nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"X-Csrf": {"1"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
	client := *l.browser.Client()
	client.Timeout = 0
	return client.Do(req)
}

// streamEnded looks for why a stream ended, and whether it was in time.
func (l *life) streamEnded(at time.Time) {
	if l.w.over.Err() != nil || l.w.history.explains(at.Add(-time.Second), at, 3*time.Second, gatewayKinds...) {
		return
	}
	for !l.explained() { // perhaps nobody has been told yet
		if l.call(l.browser, false) && !l.explained() {
			l.w.wrong("%s: a stream ended at %s, and its session did not", l.name, clock(at))
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if late := at.Sub(l.ended); !l.ended.IsZero() && !l.w.history.explains(l.ended, at, 5*time.Second, allKinds...) {
		raise(&l.w.count.latest, int64(late))
		if late > streamPatience {
			l.w.wrong("%s: a stream ended at %s, %v after its session", l.name, clock(at), late)
		}
	}
}

// explained tells whether the session is over, or may be.
func (l *life) explained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero() || len(l.tried) > 0
}

// streamPatience is the second in which streams end (DESIGN.md, section 7), on a
// machine that has other things to do.
const streamPatience = 3 * time.Second

// counts are figures of a run.
type counts struct {
	calls, others, left, cut, unavailable atomic.Int64
	logins, loginsFailed                  atomic.Int64
	logouts, backchannels, unsure         atomic.Int64
	streams, latest/* nanoseconds */ atomic.Int64
	lost atomic.Int64
}

// raise sets a number to a higher one.
func raise(n *atomic.Int64, to int64) {
	for {
		known := n.Load()
		if to <= known || n.CompareAndSwap(known, to) {
			return
		}
	}
}
