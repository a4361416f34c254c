package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// HTTP/2 has no request line, so a space is an ordinary character of its fields.
// In the HTTP/1.1 that the upstream is sent it ends the target (ASVS 4.2.1).
func TestHT09ASpaceFromHTTP2SplitsNoRequestLine(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewUnstartedServer(w.gateway)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	for _, test := range []struct {
		name, method, query string
		want                int
	}{
		{"in the query", "GET", "x HTTP/1.1", 400},
		{"in the query, encoded", "GET", "x%20HTTP/1.1", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := must(http.NewRequest(test.method, s.URL+"/api/x", nil))
			r.URL.RawQuery = test.query
			r.Host = testHost
			r.Header.Set("X-CSRF", "1")
			r.Header.Set("Cookie", w.cookie)
			before := len(w.up.requests())
			res, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if ours := res.Header.Get("X-Sessiongate") != ""; res.ProtoMajor != 2 || res.StatusCode != test.want || ours != (test.want == 400) {
				t.Errorf("%s %d, made by us: %t; want %d", res.Proto, res.StatusCode, ours, test.want)
			}
			if n := len(w.up.requests()) - before; (n > 0) != (test.want == 200) {
				t.Errorf("the upstream saw %d requests", n)
			}
		})
	}
}

// What an upstream may not say in its header it may not say after the body
// (PX-17).
func TestPX17TrailersObeyTheRulesOfTheHeader(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "Set-Cookie, X-Sessiongate, X-Checksum")
		io.WriteString(rw, strings.Repeat("x", 10000))
		rw.Header().Set("Set-Cookie", "__Host-Http-session=evil; Path=/; Secure")
		rw.Header().Set("X-Sessiongate", "1")
		rw.Header().Set("X-Checksum", "abc")
		rw.Header().Set(http.TrailerPrefix+"Clear-Site-Data", `"*"`)
	})
	c := w.dial()
	io.WriteString(c, rawRequest("GET /api/x", "", w.withSession("TE: trailers", "Connection: close, TE")))
	all := string(must(io.ReadAll(c)))
	_, trailers, _ := strings.Cut(all, "\r\n0\r\n")
	if !strings.Contains(trailers, "X-Checksum: abc") {
		t.Errorf("trailers %q, want X-Checksum", trailers)
	}
	for _, name := range []string{"Set-Cookie", "X-Sessiongate", "Clear-Site-Data"} {
		if strings.Contains(trailers, name) {
			t.Errorf("%s passed:\n%s", name, trailers)
		}
	}
}

// A client that sends no body holds nothing for ever: not the connection of a
// refusal, and not an upstream's (ASVS 13.2.6).
func TestABodyThatDoesNotComeEndsTheRequest(t *testing.T) {
	w := newWorld(t)
	w.gateway.patience = 200 * time.Millisecond
	for _, test := range []struct {
		name, line string
		header     []string
		want       int
	}{
		{"to a route", "POST /api/x", w.withSession(), 408},
		{"to a route without a session", "POST /api/x", []string{"X-CSRF: 1"}, 401},
		{"to no route", "POST /nowhere", nil, 404},
		{"to an endpoint", "POST /bff/echo", nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			header := append([]string{"Content-Length: 1000"}, test.header...)
			fmt.Fprint(c, rawRequest(test.line, "", header), "some")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || test.want != 0 && res.StatusCode != test.want {
				t.Fatalf("%v, %v; want %d", res, err, test.want)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

// A body that comes slowly, but comes, passes.
func TestASlowBodyPasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const patience = time.Second
	w.gateway.patience = patience
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(patience * 5 / 4) // the time of the body is not that of the answer
		io.WriteString(rw, "done")
	})
	c := w.dial()
	io.WriteString(c, rawRequest("POST /api/x", "", w.withSession("Content-Length: 10")))
	for range 10 {
		time.Sleep(patience / 8)
		io.WriteString(c, "x")
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
}
