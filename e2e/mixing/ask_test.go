package mixing

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// What an upstream is asked to do.
const (
	plain   = "plain"
	hint    = "hint"    // 103 comes first (RFC 8297)
	tail    = "tail"    // trailers come last
	empty   = "empty"   // 204
	gone    = "gone"    // the connection is closed instead, the first time
	cut     = "cut"     // the connection is closed in the middle of the answer
	early   = "early"   // the answer comes before the request's body, and the connection is closed
	refuse  = "refuse"  // the token is refused, if it has not been refused before
	slow    = "slow"    // the answer comes in parts
	leave   = "leave"   // plain, but the client leaves in the middle of the answer
	quit    = "quit"    // plain, but the client leaves in the middle of the body
	socket  = "socket"  // a WebSocket
	goodbye = "goodbye" // a WebSocket whose client leaves without a word
)

var modes = []string{plain, hint, tail, empty, gone, cut, early, refuse, slow, leave, quit, socket, goodbye}

// counts is how often each mode took place.
type counts [13]atomic.Int64

func (c *counts) add(mode string) { c[slices.Index(modes, mode)].Add(1) }

func (c *counts) total() (n int64) {
	for i := range c {
		n += c[i].Load()
	}
	return n
}

func (c *counts) String() string {
	var b strings.Builder
	for i, mode := range modes {
		fmt.Fprintf(&b, "%s %d ", mode, c[i].Load())
	}
	return strings.TrimSpace(b.String())
}

// complete checks that there is something of everything.
func (c *counts) complete(t *testing.T) {
	for i, mode := range modes {
		if c[i].Load() == 0 {
			t.Errorf("no request of mode %s", mode)
		}
	}
}

// ask is one request, and what its answer has to be.
type ask struct {
	*user
	mode   string
	method string
	route  string
	nonce  string
	lines  int    // of the answer's body
	body   []byte // of the request
	echo   string // what the upstream says of the request in the header of its answer
}

// routes lead to an HTTP/1.1 upstream and two of HTTP/2.
var routes = []string{"one", "other", "clear", "secure", "safe"}

// draw makes up a request.
func draw(u *user, random *mathrand.Rand, of ...string) *ask {
	a := &ask{user: u, mode: of[random.IntN(len(of))], method: http.MethodGet, route: routes[random.IntN(len(routes))], nonce: rand.Text(), lines: random.IntN(40)}
	lines := 0 // of the request's body
	switch a.mode {
	case early:
		a.method, lines = http.MethodPost, 200+random.IntN(2000)
	case quit:
		a.method, lines = http.MethodPost, 200+random.IntN(400)
	case leave:
		a.lines = 1000 + random.IntN(2000)
	case cut:
		a.lines = 20 + random.IntN(500)
	case socket, goodbye:
		a.route = "one"
	case plain, tail, slow, refuse:
		if random.IntN(3) == 0 {
			a.method, lines = []string{http.MethodPost, http.MethodPut, http.MethodDelete}[random.IntN(3)], random.IntN(200)
		} else if random.IntN(8) == 0 && a.mode == plain {
			a.method = http.MethodHead
		}
	}
	a.body = text(lines, "body", a.sub, a.nonce)
	sent := digest(a.body)
	if a.mode == early {
		sent = "unread"
	}
	a.echo = strings.Join([]string{a.id, a.sub, a.nonce, a.method, a.path(), sent}, " ")
	return a
}

// path has all in it that the upstream has to know.
func (a *ask) path() string {
	return fmt.Sprintf("/%s/%s/%s/%d?n=%s", a.route, a.mode, a.nonce, a.lines, a.nonce)
}

// header is what a browser sends, and a proxy in front of the gateway adds.
func (a *ask) header() http.Header {
	return http.Header{
		"Cookie":          {"who=" + a.sub + "; " + a.cookie + "; nonce=" + a.nonce},
		"X-Csrf":          {"1"},
		"X-Who":           {a.sub},
		"X-App":           {a.id},
		"X-Nonce":         {a.nonce},
		"X-Forwarded-For": {a.address},
		"X-Request-Id":    {a.nonce},
	}
}

func (a *ask) receives() []byte { return text(a.lines, "answer", a.sub, a.nonce) }

// text is lines that each say whose they are.
func text(n int, words ...string) []byte {
	return bytes.Repeat([]byte(strings.Join(words, " ")+"\n"), n)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// answered checks the head of an answer, and tells whether the upstream's is to
// follow.
func (w *world) answered(a *ask, res *http.Response) bool {
	if res.Header.Get("X-Sessiongate") != "" {
		w.refused(a, res)
		return false
	}
	want := http.StatusOK
	switch {
	case a.mode == empty:
		want = http.StatusNoContent
	case a.mode == refuse && res.StatusCode == http.StatusUnauthorized:
		want = http.StatusUnauthorized // what has a body is not sent again, nor what was just refused
	}
	if res.StatusCode != want {
		w.report("failure", "%s: status %d, want %d", a.echo, res.StatusCode, want)
	}
	for name, want := range map[string]string{"X-Echo": a.echo, "Set-Cookie": "nonce=" + a.nonce, "X-From": a.address} {
		if got := res.Header[name]; len(got) != 1 || got[0] != want {
			w.report("answer", "%s: %s is %q, want %q", a.echo, name, got, want)
		}
	}
	return true
}

// refused checks an answer of the gateway's own: the upstream's was none.
func (w *world) refused(a *ask, res *http.Response) {
	body, _ := io.ReadAll(res.Body)
	unreachable := res.StatusCode == http.StatusBadGateway && bytes.Contains(body, []byte("upstream_unreachable"))
	if !unreachable || a.mode != gone && a.mode != early && a.mode != cut {
		w.report("failure", "%s: status %d, %s", a.echo, res.StatusCode, body)
	}
	if res.Header.Get("X-Request-Id") != a.nonce || res.Header.Get("X-Echo") != "" || res.Header.Get("Set-Cookie") != "" {
		w.report("answer", "%s is refused with %v", a.echo, res.Header)
	}
}

// read checks the body of an answer, and what comes after it.
func (w *world) read(a *ask, res *http.Response) {
	want := a.receives()
	if a.method == http.MethodHead || a.mode == empty || res.StatusCode == http.StatusUnauthorized {
		want = nil
	}
	got, err := io.ReadAll(res.Body)
	w.same(a, got, want, err != nil)
	switch {
	case a.mode == cut && err == nil:
		w.report("failure", "%s: half an answer passes for a whole one", a.echo)
	case a.mode != cut && a.mode != early && err != nil:
		w.report("failure", "%s: %v", a.echo, err)
	case err == nil && a.mode == tail && res.StatusCode == http.StatusOK:
		if tails := res.Trailer["X-Tail"]; len(tails) != 1 || tails[0] != a.sub+" "+a.nonce {
			w.report("answer", "%s: trailer %q", a.echo, tails)
		}
	case err == nil && len(res.Trailer) > 0:
		w.report("answer", "%s: trailers %v, want none", a.echo, res.Trailer)
	}
}

// same compares what came with what should have, up to where it broke off.
func (w *world) same(a *ask, got, want []byte, broke bool) {
	if bytes.Equal(got, want) || broke && bytes.HasPrefix(want, got) {
		return
	}
	w.report("answer", "%s: the body is %d bytes, want %d; %q", a.echo, len(got), len(want), got[:min(len(got), 200)])
}

// hinted checks an interim answer.
func (w *world) hinted(a *ask, status int, h http.Header) {
	if status == http.StatusContinue {
		return
	}
	want := "</" + a.sub + "/" + a.nonce + ">; rel=preload"
	if links := h["Link"]; status != http.StatusEarlyHints || a.mode != hint || len(links) != 1 || links[0] != want {
		w.report("answer", "%s: interim %d with %q", a.echo, status, h["Link"])
	}
}

// asked reads back, in an upstream, what draw made.
func asked(r *http.Request) (mode, nonce string, lines int) {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) != 5 {
		return "", "", 0
	}
	lines, _ = strconv.Atoi(parts[4])
	return parts[2], parts[3], lines
}
