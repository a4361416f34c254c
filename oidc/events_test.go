package oidc_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// event is a block of an event stream: an event, or a comment.
type event struct {
	text string // its lines, joined by " | "
	at   time.Time
}

// listen reads an event stream to its end, then closes the channel.
func listen(body io.Reader) <-chan event {
	events := make(chan event, 1000)
	go func() {
		defer close(events)
		lines := bufio.NewScanner(body)
		var block []string
		for lines.Scan() {
			if lines.Text() != "" {
				block = append(block, lines.Text())
				continue
			}
			events <- event{strings.Join(block, " | "), time.Now()}
			block = nil
		}
		if err := lines.Err(); err != nil { // it did not end as HTTP says
			events <- event{"broken off: " + err.Error(), time.Now()}
		}
	}()
	return events
}

// events opens an event stream.
func (b *browser) events() (*http.Response, <-chan event) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	b.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.g.URL+"/bff/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	return resp, listen(resp.Body)
}

// next is the text of the next event, "" at the end of the stream.
func next(t *testing.T, events <-chan event) string {
	t.Helper()
	select {
	case e := <-events:
		return e.text
	case <-time.After(5 * time.Second):
		t.Fatal("no event within 5 s")
		return ""
	}
}

const greeting = "retry: 2000 | : sessiongate"

func wantNext(t *testing.T, events <-chan event, want string) {
	t.Helper()
	if got := next(t, events); got != want {
		t.Errorf("event %q, want %q", got, want)
	}
}

func TestEventsTellWhyASessionEnded(t *testing.T) { // pains 38
	for name, test := range map[string]struct {
		reason string
		end    func(g *gateway, b *browser)
	}{
		"logout":               {"logout", func(g *gateway, b *browser) { b.get(b.logoutURL()) }},
		"back-channel logout":  {"backchannel", func(g *gateway, b *browser) { g.sendLogout(g.provider.logoutToken()) }},
		"front-channel logout": {"frontchannel", func(g *gateway, b *browser) { g.frame(named(g.provider.URL, "op-session")) }},
		"ended by its user":    {"revoked", func(g *gateway, b *browser) { b.do(http.MethodDelete, "/bff/sessions/"+b.current()) }},
		"ended by an operator": {"revoked", func(g *gateway, b *browser) { g.manager.EndAll(context.Background(), g.URL, subject) }},
		"another login":        {"replaced", func(g *gateway, b *browser) { b.logIn("") }},
		"refused refresh": {"refresh_rejected", func(g *gateway, b *browser) {
			g.provider.take("/token", oauthError(400, "invalid_grant"))
			eventually(g.t, "the refusal", func() bool { return b.get("/api").code() == "session_ended" })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.answer = func(a map[string]any) { a["expires_in"] = 1 }
			g := newGateway(t, p)
			b := g.browser()
			b.logIn("")
			resp, events := b.events()
			h := resp.Header
			if resp.StatusCode != http.StatusOK || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || h.Get("X-Accel-Buffering") != "no" {
				t.Errorf("status %d header %v", resp.StatusCode, h)
			}
			wantNext(t, events, greeting)
			test.end(g, b)
			ended := time.Now()
			wantNext(t, events, `event: session.ended | data: {"reason":"`+test.reason+`"}`)
			if d := time.Since(ended); d > time.Second {
				t.Errorf("told after %v", d)
			}
			wantNext(t, events, "") // the stream ends
		})
	}
}

func TestEventsTellOfARefresh(t *testing.T) {
	p := newProvider(t)
	p.answer = func(a map[string]any) { a["expires_in"] = 1 }
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	_, events := b.events()
	wantNext(t, events, greeting)
	p.tell(func() { p.answer = nil })
	eventually(t, "a refresh", func() bool { b.get("/api"); return len(p.seen("/token")) == 2 })
	wantNext(t, events, "event: session.refreshed | data: {}")
	b.get(b.logoutURL())
	wantNext(t, events, `event: session.ended | data: {"reason":"logout"}`)
}

func TestEventsWithoutALiveSession(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	if a := b.get("/bff/events"); a.code() != "session_required" {
		t.Errorf("no cookie: status %d code %q, want session_required", a.StatusCode, a.code())
	}
	b.logIn("")
	cookie := b.cookies()[""]
	g.store.fail()
	g.forget()
	if a := b.get("/bff/events"); a.code() != "store_unavailable" {
		t.Errorf("store down: status %d code %q, want store_unavailable", a.StatusCode, a.code())
	}
	g.store.fix()
	b.get(b.logoutURL())
	b.plant("", cookie)
	if a := b.get("/bff/events"); a.StatusCode != http.StatusNoContent || a.body != "" {
		t.Errorf("an ended session: status %d code %q, want 204", a.StatusCode, a.code())
	}
}

func TestEventsAreBoundedPerSession(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	var open []*http.Response
	for {
		resp, events := b.events()
		if resp.StatusCode != http.StatusOK {
			if got := resp.Header.Get("X-Code"); got != "too_many_requests" {
				t.Errorf("code %q, want too_many_requests", got)
			}
			break
		}
		wantNext(t, events, greeting)
		if open = append(open, resp); len(open) > 100 {
			t.Fatal("100 streams of one session")
		}
	}
	// One that is closed makes room.
	open[0].Body.Close()
	eventually(t, "room for another", func() bool {
		resp, _ := b.events()
		return resp.StatusCode == http.StatusOK
	})
}

// pipes is a listener without a network: its connections hold nothing back, and
// time goes on while they wait.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { close(l.done); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// protocols are those by which a browser can have an event stream.
var protocols = map[string]func(*http.Protocols){
	"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
	"HTTP/2":   func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
}

// bubble is a gateway whose time is the test's, with a session and a browser.
type bubble struct {
	*gateway
	session *session.Session
	cookie  *http.Cookie
	began   time.Time
	browser http.Client
	serving atomic.Int32 // handlers at work
	held    atomic.Bool  // the browser reads nothing more
}

// inBubble runs a test in which time passes when all wait, by each protocol.
func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	for name := range protocols {
		t.Run(name, func(t *testing.T) { inBubbleBy(t, name, test) })
	}
}

func inBubbleBy(t *testing.T, protocol string, test func(t *testing.T, b *bubble)) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) { test(t, newBubble(t, p, protocols[protocol])) })
}

func newBubble(t *testing.T, p *provider, protocol func(*http.Protocols)) *bubble {
	// A connection to the provider would hold the clock.
	b := &bubble{gateway: newGateway(t, p, func(s *setup) { s.Logout.Revoke = false }), began: time.Now()}
	b.Close() // called without its server
	var err error
	b.session, b.cookie, err = b.app.Create(t.Context(), session.Login{
		Subject: subject, Token: &oauth2.Token{AccessToken: "canary"}, FlowBegan: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocol(&protocols)
	l := &pipes{make(chan net.Conn), make(chan struct{})}
	srv := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.serving.Add(1)
		defer b.serving.Add(-1)
		b.Config.Handler.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	tr := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		browser, server := net.Pipe()
		l.conns <- server
		t.Cleanup(func() { browser.Close() })
		return &heldConn{browser, &b.held, l.done}, nil
	}}
	b.browser.Transport = tr
	t.Cleanup(func() {
		srv.Close()
		tr.CloseIdleConnections()
	})
	return b
}

// heldConn is a connection whose reader can fall asleep. What it was to read then
// it still does.
type heldConn struct {
	net.Conn
	held *atomic.Bool
	done chan struct{}
}

func (c *heldConn) Read(p []byte) (int, error) {
	if c.held.Load() {
		<-c.done
		return 0, net.ErrClosed
	}
	return c.Conn.Read(p)
}

func (b *bubble) get(t *testing.T, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example.com"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(b.cookie)
	resp, err := b.browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d code %q, want 200", resp.StatusCode, resp.Header.Get("X-Code"))
	}
	return resp
}

func (b *bubble) events(t *testing.T) <-chan event {
	t.Helper()
	events := listen(b.get(t, "/bff/events").Body)
	if e := <-events; e.text != greeting || !e.at.Equal(time.Now()) {
		t.Errorf("event %q, want %q at once", e.text, greeting)
	}
	return events
}

// story is what a stream tells until its end, each with the time since began, and
// the number of heartbeats.
func story(events <-chan event, began time.Time) (told []string, beats int) {
	for e := range events {
		if e.text == ":" {
			beats++
			continue
		}
		told = append(told, e.at.Sub(began).Round(time.Second).String()+" "+e.text)
	}
	return told, beats
}

func TestSES14EventsAreNoUse(t *testing.T) { // pains 37, UI-06
	inBubble(t, func(t *testing.T, b *bubble) {
		told, beats := story(b.events(t), b.began)
		// An idle end may come 5 % late, never early.
		if len(told) != 2 || told[0] != `29m0s event: session.expiring | data: {"expires_in":60}` ||
			!strings.HasSuffix(told[1], `event: session.ended | data: {"reason":"idle_timeout"}`) {
			t.Errorf("told %q", told)
		}
		d := time.Since(b.began)
		if d < 30*time.Minute || d > 32*time.Minute {
			t.Errorf("the session lasted %v, want 30 to 31.5 minutes", d)
		}
		if want := int(d / (25 * time.Second)); beats != want {
			t.Errorf("%d heartbeats, want %d: one in 25 s", beats, want)
		}
	})
}

func TestEventsTellOfTheAbsoluteEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		stop, err := b.session.Watch(t.Context(), session.Watcher{Ended: func(session.Reason) {}, KeepsAlive: true})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		told, _ := story(b.events(t), b.began)
		want := `11h59m0s event: session.expiring | data: {"expires_in":60} and 12h0m0s event: session.ended | data: {"reason":"lifetime"}`
		if got := strings.Join(told, " and "); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

func TestEventsTellOfEachApproach(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		time.AfterFunc(29*time.Minute+30*time.Second, b.session.Use)
		told, _ := story(b.events(t), b.began)
		if len(told) != 3 || !strings.HasPrefix(told[0], "29m0s event: session.expiring") ||
			!strings.HasPrefix(told[1], "58m30s event: session.expiring") || !strings.Contains(told[2], "idle_timeout") {
			t.Errorf("told %q", told)
		}
	})
}

func TestEventsBegunNearTheEndTellOfItAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		time.Sleep(29*time.Minute + 40*time.Second)
		told, _ := story(b.events(t), b.began)
		if len(told) != 2 || told[0] != `29m40s event: session.expiring | data: {"expires_in":20}` {
			t.Errorf("told %q", told)
		}
	})
}

// Over HTTP/2 it is the server's to give up a connection that nobody reads.
func TestEventsDropABrowserThatDoesNotRead(t *testing.T) {
	inBubbleBy(t, "HTTP/1.1", func(t *testing.T, b *bubble) {
		b.events(t)
		b.held.Store(true)
		// The first heartbeat finds a reader that was waiting already, the second
		// nobody.
		time.Sleep(2*25*time.Second + 9*time.Second)
		if n := b.serving.Load(); n != 1 {
			t.Errorf("%d streams 9 s after a heartbeat that is not read, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := b.serving.Load(); n != 0 {
			t.Errorf("%d streams 11 s after a heartbeat that is not read, want 0", n)
		}
	})
}

func TestEventsNoticeThatTheBrowserHasGone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		resp := b.get(t, "/bff/events")
		listen(resp.Body)
		time.Sleep(time.Minute)
		if n := b.serving.Load(); n != 1 {
			t.Errorf("%d streams, want 1", n)
		}
		go resp.Body.Close()
		synctest.Wait()
		if n := b.serving.Load(); n != 0 {
			t.Errorf("%d streams after the browser left, want 0", n)
		}
	})
}
