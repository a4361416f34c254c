package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile sends raw bytes of one user's request, then a request of another user on
// the same connection, as a balancer sends them. Whatever becomes of the first, the
// upstream sees whole requests, each with its own user's token, and nothing that
// was hidden in another's body.
func (w *world) hostile(up *wireUpstream, raw string) (statuses []int, bodies []string, closed bool) {
	w.t.Helper()
	up.forget()
	cookie, token := w.login(time.Hour)
	after := rawRequest("GET /api/after", "", []string{"Cookie: " + cookie, "X-CSRF: 1", "Connection: close"})
	answers, closed := w.talk(raw + after)
	for _, a := range answers {
		statuses = append(statuses, a.StatusCode)
	}
	for _, m := range up.messages(true) {
		line, _, _ := strings.Cut(m, "\r\n")
		head, _, _ := strings.Cut(m, "\r\n\r\n")
		switch {
		case strings.HasPrefix(line, "GET /api/after "):
			if strings.Count(head, "Authorization: Bearer "+token+"\r\n") != 1 || strings.Count(head, "\r\nAuthorization:") != 1 {
				w.t.Errorf("the other user's request reached the upstream as %q", m)
			}
		case strings.Contains(line, " /api/evil "):
			if strings.Count(head, "Authorization: Bearer "+w.token+"\r\n") != 1 || strings.Count(head, "\r\nAuthorization:") != 1 || strings.Contains(m, token) {
				w.t.Errorf("the request reached the upstream as %q", m)
			}
			bodies = append(bodies, bodyOf(m))
		default:
			w.t.Errorf("the upstream saw a request that nobody sent: %q", m)
		}
	}
	return statuses, bodies, closed
}

// framingRow is a request on the wire, and what becomes of it.
type framingRow struct {
	name     string
	line     string   // default: POST /api/evil HTTP/1.1
	header   []string // besides Host, Cookie and X-CSRF
	body     string
	statuses []int    // of the answers; the last is that to the request that follows, if 200 is not the only one
	bodies   []string // of the requests that the upstream saw whole, the following one not counted
}

const smuggled = "GET /api/smuggled HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"

var (
	chunked  = "Transfer-Encoding: chunked"
	refused  = []int{400}
	unknown  = []int{501} // RFC 9112, section 6.1; and the connection ends as with 400
	passed   = []int{200, 200}
	lastOne  = []int{200} // the connection ends behind it
	nothing  []int
	oneABC   = []string{"abc"}
	oneEmpty = []string{""}
)

var framingRows = []framingRow{
	{name: "an ordinary request", header: []string{"Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},

	// RFC 9112, section 6.1: the coding counts, and the connection ends.
	{name: "HT-05 CL.TE", header: []string{"Content-Length: 60", chunked}, body: "0\r\n\r\n" + smuggled, statuses: lastOne, bodies: oneEmpty},
	{name: "HT-05 TE.CL", header: []string{"Content-Length: 4", chunked}, body: fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled), statuses: lastOne, bodies: []string{smuggled}},
	{name: "HT-05 TE before CL", header: []string{chunked, "Content-Length: 3"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 chunks and Content-Length: 0", header: []string{chunked, "Content-Length: 0"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 chunks and a Content-Length that is none", header: []string{chunked, "Content-Length: x"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: refused},
	{name: "HT-05 a coding in another case", header: []string{"transfer-ENCODING: cHuNkEd"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 a coding behind a tab", header: []string{"Transfer-Encoding:\tchunked", "Content-Length: 3"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 a coding on a folded line", header: []string{"Transfer-Encoding:\r\n chunked", "Content-Length: 3"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 a coding that Connection names", header: []string{"Connection: Transfer-Encoding", chunked}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "HT-05 a length that Connection names", header: []string{"Connection: Content-Length", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},
	{name: "HT-05 a coding with an underscore", header: []string{"Transfer_Encoding: chunked", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},
	{name: "HT-05 a length with an underscore", header: []string{"Content_Length: 99", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},

	{name: "HT-06 two lengths", header: []string{"Content-Length: 3", "Content-Length: 4"}, body: "abc", statuses: refused},
	{name: "HT-06 the same length twice", header: []string{"Content-Length: 3", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},
	{name: "HT-06 a list of lengths", header: []string{"Content-Length: 3, 4"}, body: "abc", statuses: refused},
	{name: "HT-06 a list of one length", header: []string{"Content-Length: 3, 3"}, body: "abc", statuses: refused},
	{name: "HT-06 a plus", header: []string{"Content-Length: +3"}, body: "abc", statuses: refused},
	{name: "HT-06 a minus", header: []string{"Content-Length: -3"}, body: "abc", statuses: refused},
	{name: "HT-06 hexadecimal", header: []string{"Content-Length: 0x3"}, body: "abc", statuses: refused},
	{name: "HT-06 with underscores", header: []string{"Content-Length: 1_0"}, body: "abc", statuses: refused},
	{name: "HT-06 a fraction", header: []string{"Content-Length: 3.0"}, body: "abc", statuses: refused},
	{name: "HT-06 an empty length", header: []string{"Content-Length:"}, body: "abc", statuses: refused},
	{name: "HT-06 two numbers", header: []string{"Content-Length: 3 4"}, body: "abc", statuses: refused},
	{name: "HT-06 more than 64 bits", header: []string{"Content-Length: 18446744073709551619"}, body: "abc", statuses: refused},
	{name: "HT-06 zeros in front are decimal", header: []string{"Content-Length: 0003"}, body: "abc", statuses: passed, bodies: oneABC},
	{name: "HT-06 a coding after chunked", header: []string{"Transfer-Encoding: chunked, identity"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: unknown},
	{name: "HT-06 a coding before chunked", header: []string{"Transfer-Encoding: gzip, chunked"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: unknown},
	{name: "HT-06 chunked twice", header: []string{"Transfer-Encoding: chunked, chunked"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: unknown},
	{name: "HT-06 chunked in two lines", header: []string{chunked, chunked}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: unknown},
	{name: "HT-06 chunked and identity in two lines", header: []string{chunked, "Transfer-Encoding: identity"}, body: "3\r\nabc\r\n0\r\n\r\n", statuses: unknown},
	{name: "HT-06 xchunked", header: []string{"Transfer-Encoding: xchunked", "Content-Length: 3"}, body: "abc", statuses: unknown},
	{name: "HT-06 identity", header: []string{"Transfer-Encoding: identity", "Content-Length: 3"}, body: "abc", statuses: unknown},
	{name: "HT-06 an empty coding", header: []string{"Transfer-Encoding:", "Content-Length: 3"}, body: "abc", statuses: unknown},
	{name: "HT-06 quoted", header: []string{`Transfer-Encoding: "chunked"`, "Content-Length: 3"}, body: "abc", statuses: unknown},
	{name: "HT-06 behind a vertical tab", header: []string{"Transfer-Encoding: \x0bchunked", "Content-Length: 3"}, body: "abc", statuses: refused},
	// Framing is faulty then, whatever the length says (RFC 9112, section 6.1).
	{name: "HT-06 a coding in HTTP/1.0", line: "POST /api/evil HTTP/1.0", header: []string{chunked, "Connection: keep-alive", "Content-Length: 3"}, body: "abc", statuses: lastOne, bodies: oneABC},
	{name: "HT-06 a coding and no length in HTTP/1.0", line: "POST /api/evil HTTP/1.0", header: []string{chunked, "Connection: keep-alive"}, statuses: lastOne, bodies: oneEmpty},

	{name: "HT-07 a space before the colon", header: []string{"Content-Length : 3"}, body: "abc", statuses: refused},
	{name: "HT-07 a tab before the colon", header: []string{"Transfer-Encoding\t: chunked", "Content-Length: 3"}, body: "abc", statuses: refused},
	{name: "HT-07 a space before the first name", header: []string{" X: y"}, statuses: passed, bodies: oneEmpty}, // after Host and Cookie: it folds X-CSRF's line
	{name: "HT-07 whitespace before all names", line: "POST /api/evil HTTP/1.1\r\n X: y", statuses: refused},
	{name: "HT-07 a folded line is one line", header: []string{"X-A: b", " Content-Length: 99", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},
	{name: "HT-07 a bare CR in a value", header: []string{"X-A: b\rContent-Length: 99", "Content-Length: 3"}, body: "abc", statuses: refused},
	{name: "HT-07 a bare CR before the end of a line", header: []string{"X-A: b\r", "Content-Length: 3"}, body: "abc", statuses: refused},
	{name: "HT-07 NUL in a value", header: []string{"X-A: b\x00c"}, statuses: refused},
	{name: "HT-07 a control character in a value", header: []string{"X-A: b\x7fc"}, statuses: refused},
	{name: "HT-07 NUL in a name", header: []string{"X\x00A: b"}, statuses: refused},
	{name: "HT-07 a line without a colon", header: []string{"X-A"}, statuses: refused},
	{name: "HT-07 a line without a name", header: []string{": x"}, statuses: refused},
	{name: "HT-07 a name that is no token", header: []string{"X(A): x"}, statuses: refused},
	{name: "HT-07 a bare CR in the request line", line: "POST /api/evil\r HTTP/1.1", statuses: refused},
	{name: "HT-07 two spaces in the request line", line: "POST  /api/evil HTTP/1.1", statuses: refused},
	{name: "HT-07 a tab in the request line", line: "POST\t/api/evil HTTP/1.1", statuses: refused},
	{name: "HT-07 no version", line: "POST /api/evil", statuses: refused},
	{name: "HT-07 a version that is none", line: "POST /api/evil HTTP/1.11", statuses: refused},
	{name: "HT-07 two versions", line: "POST /api/evil HTTP/1.1 HTTP/1.1", statuses: refused},
	{name: "HT-07 a version to come", line: "POST /api/evil HTTP/3.0", statuses: []int{505}},
	{name: "HT-07 a bare LF in the header is a line end", header: []string{"X-A: b\nX-C: d", "Content-Length: 3"}, body: "abc", statuses: passed, bodies: oneABC},

	{name: "chunks with an extension", header: []string{chunked}, body: "3;a=b\r\nabc\r\n0\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "CVE-2025-22871 a bare LF in a chunk line", header: []string{chunked}, body: "3\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "CVE-2025-22871 a bare LF in a chunk extension", header: []string{chunked}, body: "3;\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a bare CR in a chunk extension", header: []string{chunked}, body: "3;a\rb\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a bare LF behind a chunk", header: []string{chunked}, body: "3\r\nabc\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk that is longer than it says", header: []string{chunked}, body: "2\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk of a negative size", header: []string{chunked}, body: "-3\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk size with a plus", header: []string{chunked}, body: "+3\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk size with 0x", header: []string{chunked}, body: "0x3\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk size of more than 64 bits", header: []string{chunked}, body: "10000000000000003\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk without a size", header: []string{chunked}, body: "\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "a chunk size of other digits", header: []string{chunked}, body: "\uff13\r\nabc\r\n0\r\n\r\n", statuses: nothing},
	{name: "trailers are discarded", header: []string{chunked}, body: "3\r\nabc\r\n0\r\nContent-Length: 99\r\nHost: evil.example\r\nAuthorization: Bearer evil\r\n\r\n", statuses: lastOne, bodies: oneABC},
	{name: "a trailer that is no field", header: []string{chunked}, body: "3\r\nabc\r\n0\r\nGET /api/smuggled HTTP/1.1\r\n\r\n", statuses: nothing},
}

// TestFramingOfRequests: raw bytes in, raw bytes out (HT-05, HT-06, HT-07; RFC 9112,
// sections 2 to 7).
func TestFramingOfRequests(t *testing.T) {
	for _, row := range framingRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			up := newWireUpstream(t, nil)
			w := newWorld(t, func(_ *world, a *App, _ *Config) { a.Routes = []Route{{Path: "/api/", Upstream: up.url()}} })
			line := row.line
			if line == "" {
				line = "POST /api/evil HTTP/1.1"
			}
			raw := line + "\r\nHost: " + testHost + "\r\nCookie: " + w.cookie + "\r\nX-CSRF: 1\r\n"
			for _, h := range row.header {
				raw += h + "\r\n"
			}
			statuses, bodies, closed := w.hostile(up, raw+"\r\n"+row.body)
			if !slices.Equal(statuses, row.statuses) || !closed {
				t.Errorf("answers %d, closed: %v; want %d, true", statuses, closed, row.statuses)
			}
			if !slices.Equal(bodies, row.bodies) {
				t.Errorf("the upstream saw bodies %q, want %q", bodies, row.bodies)
			}
		})
	}
}

// TestHT08Hosts: one host in each request, and the one that the request is about
// (RFC 9112, sections 3.2 and 3.2.2).
func TestHT08Hosts(t *testing.T) {
	up := newWireUpstream(t, nil)
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{{Path: "/open/", Upstream: up.url(), Auth: AuthNone}}
	})
	for _, row := range []struct {
		name, line, header string
		want               int
	}{
		{"no Host", "GET /open/x HTTP/1.1", "", 400},
		{"no Host in HTTP/1.0", "GET /open/x HTTP/1.0", "", 421},
		{"Host in HTTP/1.0", "GET /open/x HTTP/1.0", "Host: shop.example.com\r\n", 200},
		{"two hosts", "GET /open/x HTTP/1.1", "Host: shop.example.com\r\nHost: evil.example\r\n", 400},
		{"the same host twice", "GET /open/x HTTP/1.1", "Host: shop.example.com\r\nHost: shop.example.com\r\n", 400},
		{"two hosts in HTTP/1.0", "GET /open/x HTTP/1.0", "Host: shop.example.com\r\nHost: evil.example\r\n", 400},
		{"a host and an empty one", "GET /open/x HTTP/1.1", "Host: shop.example.com\r\nHost:\r\n", 400},
		{"an empty host", "GET /open/x HTTP/1.1", "Host:\r\n", 421},
		{"a list of hosts", "GET /open/x HTTP/1.1", "Host: shop.example.com, evil.example\r\n", 400},
		{"a host with a space", "GET /open/x HTTP/1.1", "Host: shop.example.com evil.example\r\n", 400},
		{"a host with a path", "GET /open/x HTTP/1.1", "Host: shop.example.com/open\r\n", 400},
		{"a host with a query", "GET /open/x HTTP/1.1", "Host: evil.example?shop.example.com\r\n", 400},
		{"a host with a user", "GET /open/x HTTP/1.1", "Host: shop.example.com@evil.example\r\n", 400},
		{"a host with a port that is none", "GET /open/x HTTP/1.1", "Host: shop.example.com:http\r\n", 400},
		{"a host with two ports", "GET /open/x HTTP/1.1", "Host: shop.example.com:443:443\r\n", 400},
		{"a URL", "GET /open/x HTTP/1.1", "Host: https://shop.example.com\r\n", 400},
		{"an unknown host", "GET /open/x HTTP/1.1", "Host: evil.example\r\n", 421},
		{"a host with a dot at its end", "GET /open/x HTTP/1.1", "Host: shop.example.com.\r\n", 421},
		{"a host below ours", "GET /open/x HTTP/1.1", "Host: shop.example.com.evil.example\r\n", 421},
		{"another port", "GET /open/x HTTP/1.1", "Host: shop.example.com:8443\r\n", 421},
		{"a host in capitals", "GET /open/x HTTP/1.1", "Host: SHOP.example.COM:443\r\n", 200},
		{"an absolute target beats Host", "GET https://shop.example.com/open/x HTTP/1.1", "Host: evil.example\r\n", 200},
		{"an absolute target with an unknown host", "GET https://evil.example/open/x HTTP/1.1", "Host: shop.example.com\r\n", 421},
		{"an absolute target without Host", "GET https://shop.example.com/open/x HTTP/1.1", "", 400},
		{"a target that is a host", "GET shop.example.com:443 HTTP/1.1", "Host: shop.example.com\r\n", 400},
		{"the asterisk", "OPTIONS * HTTP/1.1", "Host: shop.example.com\r\n", 400},
		{"CONNECT", "CONNECT shop.example.com:443 HTTP/1.1", "Host: shop.example.com\r\n", 405},
	} {
		up.forget()
		answers, _ := w.talk(row.line + "\r\n" + row.header + "Connection: close\r\n\r\n")
		if len(answers) != 1 || answers[0].StatusCode != row.want {
			t.Errorf("%s: %+v, want %d", row.name, answers, row.want)
			continue
		}
		saw := up.messages(false)
		if (len(saw) == 1) != (row.want == 200) {
			t.Errorf("%s: the upstream saw %q", row.name, saw)
		}
		for _, m := range saw {
			if !strings.Contains(m, "\r\nHost: "+up.addr+"\r\n") || !strings.Contains(m, "\r\nX-Forwarded-Host: "+testHost+"\r\n") || strings.Contains(m, "evil") {
				t.Errorf("%s: the upstream saw %q", row.name, m)
			}
		}
	}
}

// A body of unknown length goes to an HTTP/1.1 upstream in chunks, byte for byte.
func TestHT09ABodyWithoutLengthGoesOnInChunks(t *testing.T) {
	up := newWireUpstream(t, nil)
	w := newWorld(t, func(_ *world, a *App, c *Config) {
		a.Routes = []Route{{Path: "/api/", Upstream: up.url()}}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	body := strings.Repeat("0\r\n\r\n"+smuggled, 1000)
	r := must(http.NewRequest("POST", w.h2cListener().URL+"/api/evil", io.NopCloser(strings.NewReader(body))))
	r.Host = testHost
	r.Header = http.Header{"Cookie": {w.cookie}, "X-Csrf": {"1"}}
	res, err := h2cClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	saw := up.messages(false)
	if res.StatusCode != 200 || len(saw) != 1 || bodyOf(saw[0]) != body || !strings.Contains(saw[0], "\r\nTransfer-Encoding: chunked\r\n") {
		t.Errorf("status %d; the upstream saw %d requests", res.StatusCode, len(saw))
	}
}
